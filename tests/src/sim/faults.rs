//! What is broken, when, and for how long: drawn from the seed.

use super::env::{Env, Event, MS, Micros, Node, SECOND};
use super::network::Weather;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next one is due.
    Next,
    Kill(Node),
    /// The whole host, at once and without a word.
    Vanish(usize),
    Start(Node),
    /// Told to stop in order.
    Stop(Node),
    Pause(Node),
    Resume(Node),
    /// The host stands still, with everything on it.
    Freeze(usize),
    Thaw(usize),
    /// As soon as an exclusive attempt is about to start there, the host or only the executor stands still.
    StallAtStart(usize, Stall),
    Cut {
        node: Node,
        out: bool,
        inward: bool,
    },
    CutFromNats(Node),
    CutFromEtcd(Node),
    CutFromLog(Node),
    Join(Node),
    Isolate(usize),
    Rejoin(usize),
    KillZone(usize),
    StartZone(usize),
    CloseLog,
    OpenLog,
    CloseEtcd,
    OpenEtcd,
    CloseBlobs,
    OpenBlobs,
    SlowLog(Micros),
    SlowBlobs(Micros),
    SlowDisk {
        executor: usize,
        by: Micros,
    },
    LagReplicas(u64),
    Damage,
    /// etcd ends the leader's lease, while the leader lives.
    Depose,
    ForgetIds,
    LoseTail,
}

/// How an executor stands still, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    pub with_host: bool,
    pub long: Micros,
}

/// What a seed may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    KillScheduler,
    KillExecutor,
    VanishExecutor,
    StopScheduler,
    StopExecutor,
    PauseScheduler,
    PauseExecutor,
    Freeze,
    Cut,
    CutOneWay,
    CutFromNats,
    CutFromEtcd,
    CutFromLog,
    Isolate,
    KillZone,
    Log,
    Etcd,
    Blobs,
    SlowLog,
    SlowBlobs,
    SlowDisk,
    Lag,
    Damage,
    Depose,
    ForgetIds,
    /// An executor is cut from core NATS for longer than a stop is waited for, and keeps its lease. Only where it is
    /// asked for.
    LongCutFromNats,
    /// An executor stands still beyond its lease just as an exclusive attempt is about to start. Only where it is asked
    /// for.
    StallAtStart,
}

const KINDS: [Kind; 25] = [
    Kind::KillScheduler,
    Kind::KillExecutor,
    Kind::VanishExecutor,
    Kind::StopScheduler,
    Kind::StopExecutor,
    Kind::PauseScheduler,
    Kind::PauseExecutor,
    Kind::Freeze,
    Kind::Cut,
    Kind::CutOneWay,
    Kind::CutFromNats,
    Kind::CutFromEtcd,
    Kind::CutFromLog,
    Kind::Isolate,
    Kind::KillZone,
    Kind::Log,
    Kind::Etcd,
    Kind::Blobs,
    Kind::SlowLog,
    Kind::SlowBlobs,
    Kind::SlowDisk,
    Kind::Lag,
    Kind::Damage,
    Kind::Depose,
    Kind::ForgetIds,
];

impl Kind {
    pub fn named(name: &str) -> Option<Kind> {
        KINDS.into_iter().chain([Kind::LongCutFromNats, Kind::StallAtStart]).find(|kind| format!("{kind:?}") == name)
    }
}

/// What a seed has in store.
#[derive(Debug)]
pub struct Plan {
    kinds: Vec<Kind>,
    every: Micros,
    zones: usize,
    schedulers: usize,
    executors: usize,
}

impl Plan {
    /// `focus`: kinds of faults to choose from; nothing means all.
    pub fn draw(env: &mut Env, focus: &[Kind], zones: usize, schedulers: usize, executors: usize) -> Plan {
        let many = env.chance.between(1, 8);
        let among: &[Kind] = if focus.is_empty() { &KINDS } else { focus };
        let kinds = (0..many).map(|_| env.chance.one_of(among)).collect();
        let every = env.chance.between(500 * MS, 8 * SECOND);
        if env.chance.per_mille(600) {
            let chance = &mut env.chance;
            env.net.weather = Weather {
                drop: chance.between(0, 60),
                double: chance.between(0, 60),
                slow: chance.between(0, 100),
                late: chance.between(0, 50),
                slow_max: chance.between(10 * MS, 2 * SECOND),
            };
        }
        Plan { kinds, every, zones, schedulers, executors }
    }

    /// Breaks something, and says when it is mended.
    pub fn next(&self, env: &mut Env) -> Fault {
        let next = env.chance.between(self.every / 4, self.every * 2);
        env.after(next, Event::Fault(Fault::Next));
        let chance = &mut env.chance;
        let kind = chance.one_of(&self.kinds);
        let scheduler = Node::Scheduler(chance.below(self.schedulers as u64) as usize);
        let executor = chance.below(self.executors as u64) as usize;
        let zone = chance.below(self.zones as u64) as usize;
        let node = if chance.coin() { scheduler } else { Node::Executor(executor) };
        let short = chance.between(100 * MS, 3 * SECOND);
        let long = if chance.coin() { short } else { chance.between(SECOND, 25 * SECOND) };
        let coin = chance.coin();
        let (fault, mended) = match kind {
            Kind::KillScheduler => (Fault::Kill(scheduler), Some((long, Fault::Start(scheduler)))),
            Kind::KillExecutor => {
                (Fault::Kill(Node::Executor(executor)), Some((long, Fault::Start(Node::Executor(executor)))))
            }
            Kind::VanishExecutor => (Fault::Vanish(executor), Some((long, Fault::Start(Node::Executor(executor))))),
            Kind::StopScheduler => (Fault::Stop(scheduler), Some((long, Fault::Start(scheduler)))),
            Kind::StopExecutor => {
                // As long as it may take to leave.
                let back = long + 25 * SECOND;
                (Fault::Stop(Node::Executor(executor)), Some((back, Fault::Start(Node::Executor(executor)))))
            }
            Kind::PauseScheduler => (Fault::Pause(scheduler), Some((long, Fault::Resume(scheduler)))),
            Kind::PauseExecutor => {
                (Fault::Pause(Node::Executor(executor)), Some((long, Fault::Resume(Node::Executor(executor)))))
            }
            Kind::Freeze => (Fault::Freeze(executor), Some((long, Fault::Thaw(executor)))),
            Kind::Cut => (Fault::Cut { node, out: true, inward: true }, Some((long, Fault::Join(node)))),
            Kind::CutOneWay => (Fault::Cut { node, out: coin, inward: !coin }, Some((long, Fault::Join(node)))),
            Kind::CutFromNats => (Fault::CutFromNats(node), Some((long, Fault::Join(node)))),
            Kind::CutFromEtcd => (Fault::CutFromEtcd(node), Some((long, Fault::Join(node)))),
            Kind::CutFromLog => (Fault::CutFromLog(node), Some((long, Fault::Join(node)))),
            Kind::Isolate => (Fault::Isolate(zone), Some((long, Fault::Rejoin(zone)))),
            Kind::KillZone => (Fault::KillZone(zone), Some((long, Fault::StartZone(zone)))),
            Kind::Log => (Fault::CloseLog, Some((long.min(10 * SECOND), Fault::OpenLog))),
            Kind::Etcd => (Fault::CloseEtcd, Some((long.min(10 * SECOND), Fault::OpenEtcd))),
            Kind::Blobs => (Fault::CloseBlobs, Some((long, Fault::OpenBlobs))),
            Kind::SlowLog => (Fault::SlowLog(short), Some((long, Fault::SlowLog(0)))),
            Kind::SlowBlobs => (Fault::SlowBlobs(short), Some((long, Fault::SlowBlobs(0)))),
            Kind::SlowDisk => {
                (Fault::SlowDisk { executor, by: short }, Some((long, Fault::SlowDisk { executor, by: 0 })))
            }
            Kind::Lag => (Fault::LagReplicas(chance.between(1, 20)), Some((long, Fault::LagReplicas(0)))),
            Kind::Damage => (Fault::Damage, None),
            Kind::Depose => (Fault::Depose, None),
            Kind::ForgetIds => (Fault::ForgetIds, None),
            Kind::LongCutFromNats => {
                let (node, back) = (Node::Executor(executor), chance.between(35 * SECOND, 80 * SECOND));
                (Fault::CutFromNats(node), Some((back, Fault::Join(node))))
            }
            Kind::StallAtStart => {
                let long = chance.between(8 * SECOND, 16 * SECOND);
                (Fault::StallAtStart(executor, Stall { with_host: coin, long }), None)
            }
        };
        if let Some((after, mending)) = mended {
            env.after(after, Event::Fault(mending));
        }
        fault
    }
}
