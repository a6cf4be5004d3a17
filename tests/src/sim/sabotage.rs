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
    /// A new leader takes the newest tick of each schedule for one that is still to come.
    TickTakenAnew,
    /// A new leader takes the next tick of each schedule for one that is dealt with.
    TickForgotten,
    /// A new leader takes what jobs wait for to have ended as it had to.
    DependenciesForgotten,
    /// A new leader takes a task of each array that is over for one that waits.
    TaskLetGoAnew,
    /// A new leader lets as many tasks of an array go as there are.
    ParallelForgotten,
    /// A new leader knows nothing of the queues' caps, rates and pauses.
    QueuesForgotten,
    /// A new leader knows nothing of the limits of concurrency keys.
    KeysForgotten,
    /// Who accepts a loss leaves the executors' leases as they are.
    LeasesOutliveTheLoss,
    /// A new leader waits for nobody before it has exclusive jobs begun.
    LossOverlooked,
    /// A new leader takes for lost whatever is once said not to be there.
    LostAtOnce,
}

impl Sabotage {
    pub const ALL: [Sabotage; 27] = [
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
        Sabotage::TickTakenAnew,
        Sabotage::TickForgotten,
        Sabotage::DependenciesForgotten,
        Sabotage::TaskLetGoAnew,
        Sabotage::ParallelForgotten,
        Sabotage::QueuesForgotten,
        Sabotage::KeysForgotten,
        Sabotage::LeasesOutliveTheLoss,
        Sabotage::LossOverlooked,
        Sabotage::LostAtOnce,
    ];

    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Whether it is of queues, which runs with deliberate bugs are without otherwise.
    pub fn is_of_queues(self) -> bool {
        matches!(self, Sabotage::QueuesForgotten | Sabotage::KeysForgotten)
    }

    pub fn named(name: &str) -> Option<Sabotage> {
        Self::ALL.into_iter().find(|sabotage| sabotage.name() == name)
    }
}
