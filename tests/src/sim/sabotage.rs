//! Deliberate bugs, to show that the checkers bite. Each is in the simulated part that the real one's place is.

/// One bug at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sabotage {
    /// The log takes appends whatever sequence they expect.
    FenceOff,
    /// A probe that is not answered counts as "nobody listens there".
    TimeoutTakenForAbsence,
    /// A checkpoint is reported as soon as it has been read.
    CheckpointBeforeUpload,
    /// What was fetched is not held against its name.
    DamageOverlooked,
    /// A new leader does not ask for the witness.
    WitnessIgnored,
    /// What waits for a commit leaves at once.
    AnswerBeforeDurable,
    /// A scheduler leads without a barrier.
    NoBarrier,
    /// Shims are never given up: an executor that lost its lease does not kill.
    ShimDeadlineIgnored,
    /// The deadline of an exclusive attempt follows whatever lease its executor has by then.
    AnyLeaseWillDo,
    /// Any settle is taken for one's own commit.
    ConflictTakenForSuccess,
    /// An executor that is not heard counts as one without a lease.
    LeasesOverlooked,
    /// What an executor says of an attempt is taken for the newest one, wherever that is.
    StaleReportAccepted,
    /// An executor begins with an empty state when a checkpoint cannot be read.
    EmptyWhenUnreadable,
    /// A job that is given back is read while it goes on.
    GoesOnAfterLastReading,
    /// A new leader does not look into the bridge.
    BridgeNotDrained,
    /// etcd takes commits for the bridge from whoever brings them.
    BridgeUnguarded,
    /// What is on its way to the bridge counts as durable.
    BridgeAckedEarly,
}

impl Sabotage {
    pub const ALL: [Sabotage; 17] = [
        Sabotage::FenceOff,
        Sabotage::TimeoutTakenForAbsence,
        Sabotage::CheckpointBeforeUpload,
        Sabotage::DamageOverlooked,
        Sabotage::WitnessIgnored,
        Sabotage::AnswerBeforeDurable,
        Sabotage::NoBarrier,
        Sabotage::ShimDeadlineIgnored,
        Sabotage::AnyLeaseWillDo,
        Sabotage::ConflictTakenForSuccess,
        Sabotage::LeasesOverlooked,
        Sabotage::StaleReportAccepted,
        Sabotage::EmptyWhenUnreadable,
        Sabotage::GoesOnAfterLastReading,
        Sabotage::BridgeNotDrained,
        Sabotage::BridgeUnguarded,
        Sabotage::BridgeAckedEarly,
    ];

    pub fn name(self) -> String {
        format!("{self:?}")
    }

    pub fn named(name: &str) -> Option<Sabotage> {
        Self::ALL.into_iter().find(|sabotage| sabotage.name() == name)
    }
}
