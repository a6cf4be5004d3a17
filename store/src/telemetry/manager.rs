//! What the service manager is told (systemd's notification protocol): that this role is ready, that its loop turns,
//! what it waits for, and that it stops. Where nobody has asked to be told, nothing happens.
//!
//! Ready means the same as `/readyz`, alive the same as `/livez`. Until it is ready, the time to start is extended for
//! as long as the loop turns: a scheduler that waits for JetStream must not be killed for it.

use super::pulse::Pulse;
use sd_notify::NotifyState;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How often readiness is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// By how much one message extends the time to start or to stop: several looks.
const EXTENSION: Duration = Duration::from_secs(30);

/// Tells the manager until it is dropped.
#[derive(Debug)]
pub struct Manager {
    telling: Option<JoinHandle<()>>,
}

impl Manager {
    /// Begins to tell, if this process was started by a manager that listens.
    pub fn tell(pulse: Pulse, ready: impl Fn() -> Result<(), String> + Send + 'static) -> Manager {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Manager { telling: None };
        }
        let watchdog = sd_notify::watchdog_enabled();
        // Three chances within the manager's patience.
        let every = watchdog.map_or(LOOK_EVERY, |patience| (patience / 3).clamp(Duration::from_millis(1), LOOK_EVERY));
        Manager { telling: Some(tokio::spawn(telling(pulse, ready, every, watchdog.is_some()))) }
    }

    /// This role has begun to stop.
    pub fn stopping(&self) {
        if self.telling.is_some() {
            send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(telling) = &self.telling {
            telling.abort();
        }
    }
}

async fn telling(pulse: Pulse, ready: impl Fn() -> Result<(), String>, every: Duration, watchdog: bool) {
    let mut was_ready = false;
    let mut said = String::new();
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        let status = match ready() {
            Ok(()) => "ready".to_owned(),
            Err(why) => why,
        };
        if status == "ready" && !was_ready {
            was_ready = true;
            send(&[NotifyState::Ready]);
        }
        if status != said {
            send(&[NotifyState::Status(&status)]);
            said = status;
        }
        if pulse.check().is_ok() {
            if watchdog {
                send(&[NotifyState::Watchdog]);
            }
            if !was_ready {
                send(&[NotifyState::ExtendTimeoutUsec(EXTENSION.as_micros() as u32)]);
            }
        }
    }
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}
