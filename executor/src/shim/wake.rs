//! What the shim sleeps on: its executor, its clock, and its children. Between two of their events it costs nothing.
//!
//! Deliberately not here: what the events mean (`supervise`).

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::BootTime;
use super::protocol::{FrameError, FromShim, Inbox, ToShim, encode};

/// Signals that people, terminals and service managers send to whole groups and that must not take a shim away from
/// its job: only the executor ends jobs, and a shim whose executor has ended ends by itself.
const DEAF_TO: [i32; 6] = [
    signal_hook::consts::SIGINT,
    signal_hook::consts::SIGTERM,
    signal_hook::consts::SIGHUP,
    signal_hook::consts::SIGQUIT,
    signal_hook::consts::SIGUSR1,
    signal_hook::consts::SIGUSR2,
];

/// The most that may wait for an executor that does not read. It gets a few dozen bytes per request and event, so one
/// that lets this much gather will never read again.
const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Why a shim gave up on its executor.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error("the executor does not read what the shim has to say")]
    Deaf,
    #[error("the executor sent what a shim does not understand")]
    Frame(#[from] FrameError),
    #[error("the control channel failed")]
    Io(#[from] io::Error),
}

/// The shim's end of the control channel. Never blocks.
#[derive(Debug)]
pub(super) struct Control {
    socket: UnixStream,
    inbox: Inbox,
    outbox: Vec<u8>,
    /// False from the moment the executor closed its end or a fault was found.
    listening: bool,
    talking: bool,
}

impl Control {
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, inbox: Inbox::default(), outbox: Vec::new(), listening: true, talking: true })
    }

    /// Takes in what has arrived. `false` when nothing will ever arrive again.
    pub fn receive(&mut self) -> Result<bool, ControlError> {
        let mut buffer = [0; 16 * 1024];
        while self.listening {
            match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => self.listening = false,
                Ok((filled, _)) => {
                    self.inbox.push(&buffer[..filled]);
                    // One reading's worth at a time: messages are handled before more is taken in.
                    break;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(self.listening)
    }

    pub fn next(&mut self) -> Result<Option<ToShim>, ControlError> {
        Ok(self.inbox.take()?)
    }

    /// Says something, now or as soon as the executor reads. Nothing happens once there is nobody to hear it.
    pub fn say(&mut self, message: &FromShim) -> Result<(), ControlError> {
        if !self.talking {
            return Ok(());
        }
        let frame = encode(message)?;
        if self.outbox.len() + frame.len() > OUTBOX_BYTES_MAX {
            return Err(ControlError::Deaf);
        }
        self.outbox.extend(frame);
        self.flush();
        Ok(())
    }

    /// Hands on what waits, as far as the executor takes it.
    pub fn flush(&mut self) {
        while self.talking && !self.outbox.is_empty() {
            match send(&self.socket, &self.outbox, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(self.outbox.drain(..sent)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // The executor is gone. What follows from that follows from `receive`.
                Err(_) => self.hang_up(),
            }
        }
    }

    pub fn has_more_to_say(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Nothing more is wanted from the executor, nor told to it.
    pub fn give_up(&mut self) {
        self.listening = false;
        // A frame that cannot be read would be found there again and again.
        self.inbox = Inbox::default();
        self.hang_up();
    }

    fn hang_up(&mut self) {
        self.talking = false;
        self.outbox.clear();
    }
}

/// Where a shim sleeps.
#[derive(Debug)]
pub(super) struct Bed {
    timer: OwnedFd,
    children: UnixStream,
}

impl Bed {
    /// Prepares the timer and the signals. Handlers are used and not a signal mask, since a new program starts with
    /// the handlers reset but would inherit the mask.
    pub fn new() -> io::Result<Self> {
        let (children, notify) = UnixStream::pair()?;
        children.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, notify)?;
        let ignored = Arc::new(AtomicBool::new(false));
        for signal in DEAF_TO {
            signal_hook::flag::register(signal, Arc::clone(&ignored))?;
        }
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { timer, children })
    }

    /// Sleeps until something can be read from or handed to the executor, a child has changed, or `until` is there.
    pub fn sleep(&mut self, control: &Control, until: BootTime) -> io::Result<()> {
        let (tv_sec, tv_nsec) = until.parts();
        // All zeros would switch the timer off; a moment in the past is what is meant.
        let it_value = Timespec { tv_sec, tv_nsec: tv_nsec.max(1) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // Setting it also forgets an earlier expiry, so the timer itself never has to be read.
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        let mut interest = PollFlags::empty();
        if control.listening {
            interest |= PollFlags::IN;
        }
        if control.has_more_to_say() {
            interest |= PollFlags::OUT;
        }
        let mut sources = vec![
            PollFd::from_borrowed_fd(self.timer.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.children.as_fd(), PollFlags::IN),
        ];
        // A closed socket is always "ready", so one that is of no interest must not be looked at.
        if !interest.is_empty() {
            sources.push(PollFd::from_borrowed_fd(control.socket.as_fd(), interest));
        }
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0; 256];
        while let Ok(1..) = self.children.read(&mut buffer) {}
        Ok(())
    }
}
