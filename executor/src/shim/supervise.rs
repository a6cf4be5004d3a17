//! The life of one attempt, as its shim sees it: started, running, ending, over.
//!
//! One thread, one loop: hear the executor, reap, look at the clock, sleep. Nothing in it blocks but the sleep, so that
//! neither a deaf executor nor a tree that will not stop keeps the shim from its deadline.
//!
//! Whatever ends an attempt, the end is the same: SIGKILL to every descendant, again and again until none is left.
//! The main process's exit is such an end too; what it left behind in the background is not the job any more.
//!
//! Deliberately not here: policy. Grace periods, retries and what an exit means are the executor's.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, WaitStatus, wait};

use super::hold::Hold;
use super::launch::launch;
use super::protocol::{Exit, FromShim, Start, ToShim};
use super::tree::{self, Below, Killer};
use super::wake::{Bed, Control, ControlError};
use super::{BootTime, chain};
use crate::freeze::FreezeError;

/// How long a new shim waits to be told what to start. Its executor sends that at once.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Between two rounds of killing that nothing else gives occasion for.
const KILL_PAUSE_MIN: Duration = Duration::from_millis(1);
const KILL_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Rounds of killing that follow each other at once while each finds processes that the one before did not.
const KILL_ROUNDS_MAX: u32 = 64;

/// When an executor is told that processes survive SIGKILL. They wait for a disk or a network file system; nobody can
/// do anything about them but mend that, and the shim goes on trying.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How many children are reaped before the executor and the clock are looked at again.
const REAPED_PER_TURN_MAX: u32 = 4096;

/// How long the last words may wait for an executor that is alive but slow.
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Supervisor {
    control: Control,
    bed: Bed,
    own_pid: i32,
    phase: Phase,
    hold: Hold,
}

#[derive(Debug)]
enum Phase {
    /// Nothing was started yet.
    Idle {
        until: BootTime,
    },
    Running {
        main: i32,
        deadline: BootTime,
    },
    /// Everything is being killed. `main` is the main process if its exit is still to be reported.
    Ending {
        main: Option<i32>,
        since: BootTime,
        killer: Killer,
        next: BootTime,
        pause: Duration,
        told: bool,
    },
    /// Nothing is left; last words are being handed on.
    Over {
        until: BootTime,
    },
}

impl Supervisor {
    pub fn new(control: Control, bed: Bed) -> Self {
        let until = BootTime::now().after(START_LIMIT);
        Self { control, bed, own_pid: tree::own_pid(), phase: Phase::Idle { until }, hold: Hold::None }
    }

    /// Runs until no process of the attempt is left.
    pub fn run(mut self) -> Result<(), ControlError> {
        loop {
            if let Err(error) = self.turn() {
                // An executor that cannot be understood or does not listen is as good as gone.
                self.control.give_up();
                if matches!(self.phase, Phase::Idle { .. } | Phase::Over { .. }) {
                    return Err(error);
                }
                self.end();
            }
            let Some(until) = self.next_moment() else {
                return Ok(());
            };
            self.bed.sleep(&self.control, until)?;
        }
    }

    fn turn(&mut self) -> Result<(), ControlError> {
        let heard = self.control.receive()?;
        // What arrived is obeyed before the clock is asked: an extension sent in time counts, however late it is read.
        while let Some(message) = self.control.next()? {
            self.obey(message)?;
        }
        if !heard {
            match self.phase {
                Phase::Idle { .. } => self.phase = Phase::Over { until: BootTime::now() },
                Phase::Running { .. } => self.end(),
                Phase::Ending { .. } | Phase::Over { .. } => {}
            }
        }
        let any_left = self.reap()?;
        self.mind_the_clock()?;
        if matches!(self.phase, Phase::Ending { .. }) {
            self.kill(any_left)?;
        }
        self.control.flush();
        Ok(())
    }

    /// When to wake up if nothing happens before; `None` when everything is done.
    fn next_moment(&self) -> Option<BootTime> {
        let now = BootTime::now();
        match &self.phase {
            Phase::Idle { until } => Some(*until),
            Phase::Running { deadline, .. } => {
                Some(self.hold.next_moment().map_or(*deadline, |next| next.min(*deadline)))
            }
            Phase::Ending { next, .. } => Some(*next),
            Phase::Over { until } if self.control.has_more_to_say() && *until > now => Some(*until),
            Phase::Over { .. } => None,
        }
    }

    fn obey(&mut self, message: ToShim) -> Result<(), ControlError> {
        match message {
            ToShim::Start(start) => self.start(&start),
            ToShim::Extend { until } => {
                if let Phase::Running { deadline, .. } = &mut self.phase {
                    *deadline = until.max(*deadline);
                }
                Ok(())
            }
            ToShim::Freeze { id, hold } => self.freeze(id, hold),
            ToShim::Thaw { id } => {
                let result = self.hold.thaw(id);
                self.control.say(&FromShim::Thawed { id, result })
            }
            ToShim::EndFrozen { id } => {
                let result = self.hold.end(id);
                let holds = result.is_ok();
                self.control.say(&FromShim::Thawed { id, result })?;
                if holds {
                    self.end();
                }
                Ok(())
            }
            ToShim::Signal { signal } => self.signal(signal),
            ToShim::Kill => {
                self.end();
                Ok(())
            }
        }
    }

    fn start(&mut self, start: &Start) -> Result<(), ControlError> {
        if !matches!(self.phase, Phase::Idle { .. }) {
            return Ok(());
        }
        // Its executor may have stood still since it gave the order.
        if BootTime::now() >= start.deadline {
            self.phase = Phase::Over { until: BootTime::now().after(FAREWELL_LIMIT) };
            let reason = "its executor's lease was not renewed in time".to_owned();
            return self.control.say(&FromShim::LaunchFailed { reason });
        }
        let launched = launch(start);
        // From here on the pipes belong to the job alone: they end when its last process does.
        super::let_go_of_output()?;
        match launched {
            Ok(main) => {
                self.phase = Phase::Running { main, deadline: start.deadline };
                self.control.say(&FromShim::Started { pid: main, at: BootTime::now() })
            }
            Err(refusal) => {
                self.phase = Phase::Over { until: BootTime::now().after(FAREWELL_LIMIT) };
                self.control.say(&FromShim::LaunchFailed { reason: chain(&refusal) })
            }
        }
    }

    fn signal(&mut self, number: i32) -> Result<(), ControlError> {
        let (Phase::Running { .. }, Some(signal)) = (&self.phase, Signal::from_named_raw(number)) else {
            return Ok(());
        };
        // A frozen process would see its signal only after the checkpoint, and lose that much of its time to react.
        let answer = self.hold.lose(FreezeError::Interrupted);
        // One walk is enough: what is forked while it goes on is no worse off than what is forked after it.
        let _ = tree::walk(self.own_pid, Below::Everybody, |look| {
            let _ = tree::signal(look.member, signal);
            Ok(())
        });
        self.say_if_any(answer)
    }

    fn freeze(&mut self, id: u64, limit: Duration) -> Result<(), ControlError> {
        if !matches!(self.phase, Phase::Running { .. }) {
            return self.control.say(&FromShim::Froze { id, result: Err(FreezeError::NotRunning) });
        }
        let answer = self.hold.begin(id, limit, self.own_pid);
        self.say_if_any(answer)
    }

    fn say_if_any(&mut self, message: Option<FromShim>) -> Result<(), ControlError> {
        match message {
            Some(message) => self.control.say(&message),
            None => Ok(()),
        }
    }

    fn mind_the_clock(&mut self) -> Result<(), ControlError> {
        let now = BootTime::now();
        match self.phase {
            Phase::Idle { until } if now >= until => self.phase = Phase::Over { until: now },
            Phase::Running { deadline, .. } if now >= deadline => {
                self.end();
                self.control.say(&FromShim::DeadlinePassed)?;
            }
            Phase::Running { .. } => {
                let answer = self.hold.go_on(now);
                self.say_if_any(answer)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Begins the end. Whoever is frozen is killed as it stands.
    fn end(&mut self) {
        if let Phase::Running { main, .. } = self.phase {
            self.end_of(Some(main));
        }
    }

    fn end_of(&mut self, main: Option<i32>) {
        let now = BootTime::now();
        let killer = Killer::default();
        self.phase = Phase::Ending { main, since: now, killer, next: now, pause: KILL_PAUSE_MIN, told: false };
        self.hold = Hold::None;
    }

    /// Takes in every exit there is. `false` when no descendant is left, dead or alive.
    fn reap(&mut self) -> Result<bool, ControlError> {
        for _ in 0..REAPED_PER_TURN_MAX {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.exited(pid.as_raw_pid(), status)?,
                Ok(None) => return Ok(true),
                Err(Errno::CHILD) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(true)
    }

    fn exited(&mut self, pid: i32, status: WaitStatus) -> Result<(), ControlError> {
        let main = match &mut self.phase {
            Phase::Running { main, .. } => Some(*main),
            Phase::Ending { main, .. } => *main,
            _ => None,
        };
        if main != Some(pid) {
            return Ok(());
        }
        match &mut self.phase {
            Phase::Ending { main, .. } => *main = None,
            _ => self.end_of(None),
        }
        let exit = match status.terminating_signal() {
            Some(signal) => Exit::Signal(signal),
            None => Exit::Code(status.exit_status().unwrap_or(-1)),
        };
        self.control.say(&FromShim::Exited(exit))
    }

    /// Kills what can be found, until nothing is left.
    fn kill(&mut self, any_left: bool) -> Result<(), ControlError> {
        let now = BootTime::now();
        let Phase::Ending { since, killer, next, pause, told, .. } = &mut self.phase else {
            return Ok(());
        };
        if !any_left {
            self.phase = Phase::Over { until: now.after(FAREWELL_LIMIT) };
            return self.control.say(&FromShim::Gone);
        }
        let mut killing = killer.round(self.own_pid);
        *pause = if killing.fresh > 0 { KILL_PAUSE_MIN } else { (*pause * 2).min(KILL_PAUSE_MAX) };
        for _ in 1..KILL_ROUNDS_MAX {
            if killing.fresh == 0 {
                break;
            }
            killing = killer.round(self.own_pid);
        }
        *next = BootTime::now().after(*pause);
        if !*told && now.since(*since) >= STUCK_AFTER {
            *told = true;
            self.control.say(&FromShim::Stuck { processes: killing.found })?;
        }
        Ok(())
    }
}
