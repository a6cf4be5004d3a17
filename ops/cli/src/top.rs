//! `outlive top`: the cluster as it is now, again and again. On a terminal it draws in place; elsewhere it prints one
//! block after another, which a log or a pipe can hold.

mod draw;

use crate::args::Global;
use crate::client::Client;
use crate::human;
use crate::output::{self, Output};
use crate::overview::Overview;
use crate::status;
use anyhow::Context as _;
use clap::Args;
use outlive_schemas::time::Millis;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use std::io::IsTerminal as _;
use std::time::Duration;
use tokio::sync::mpsc;

/// Asking more often would tell nothing new: the parts themselves beat four times a second.
const INTERVAL_MIN: Millis = Millis(250);
/// How long one look at the keyboard waits, and so how long the reader outlives the screen.
const KEYS_WAIT: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  outlive top
  outlive top --interval 5s
  outlive top --once                 one block, and end
  outlive top | tee -a cluster.log   a block each interval

Keys: q or Esc ends it; space asks now.")]
pub struct TopArgs {
    /// Between two looks
    #[arg(long, default_value = "2s", value_parser = Millis::parse, value_name = "DURATION")]
    interval: Millis,
    /// Print one block and end
    #[arg(long)]
    once: bool,
}

pub async fn run(args: TopArgs, global: &Global) -> anyhow::Result<()> {
    let client = Client::connect(global).await?;
    let interval = Duration::from(args.interval.max(INTERVAL_MIN));
    if args.once || global.output == Output::Json || !std::io::stdout().is_terminal() {
        return plain(&client, interval, args.once, global.output).await;
    }
    let mut terminal = ratatui::try_init().context("the terminal cannot be drawn on; try `outlive top --once`")?;
    let ended = drawn(&mut terminal, client, interval).await;
    ratatui::restore();
    ended
}

async fn plain(client: &Client, interval: Duration, once: bool, output: Output) -> anyhow::Result<()> {
    loop {
        match output {
            Output::Json => output::line(&client.ask_system::<serde_json::Value>("status").await?.raw)?,
            Output::Table => {
                let overview = Overview::ask(client).await?;
                let now = human::now();
                output::line(format!("---- {now}\n{}\n", status::render(&overview, now)))?;
            }
        }
        if once {
            return Ok(());
        }
        tokio::time::sleep(interval).await;
    }
}

/// What a key asks for.
enum Wish {
    End,
    Now,
    /// The screen has another size.
    Redraw,
}

/// Reads keys on a thread of its own until nobody listens.
fn keys() -> mpsc::Receiver<Wish> {
    let (wishes, wished) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !wishes.is_closed() {
            match event::poll(KEYS_WAIT).and_then(|ready| if ready { event::read().map(Some) } else { Ok(None) }) {
                Ok(None) => {}
                Ok(Some(event)) => {
                    if let Some(wish) = wish_of(&event)
                        && wishes.blocking_send(wish).is_err()
                    {
                        return;
                    }
                }
                // The terminal is gone.
                Err(_) => {
                    let _ = wishes.blocking_send(Wish::End);
                    return;
                }
            }
        }
    });
    wished
}

fn wish_of(event: &Event) -> Option<Wish> {
    match event {
        Event::Resize(..) => Some(Wish::Redraw),
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Wish::End),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::End),
            KeyCode::Char(' ') => Some(Wish::Now),
            _ => None,
        },
        _ => None,
    }
}

async fn drawn(terminal: &mut DefaultTerminal, client: Client, interval: Duration) -> anyhow::Result<()> {
    let mut wishes = keys();
    let (mut shown, mut trouble): (Option<Overview>, Option<String>) = (None, None);
    let mut looks = tokio::time::interval(interval);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let ask = async |client: &Client| Overview::ask(client).await;
    loop {
        terminal.draw(|frame| draw::draw(frame, shown.as_ref(), trouble.as_deref(), human::now()))?;
        tokio::select! {
            wish = wishes.recv() => match wish {
                Some(Wish::End) | None => return Ok(()),
                Some(Wish::Now) => looks.reset_immediately(),
                Some(Wish::Redraw) => {}
            },
            _ = looks.tick() => {
                // While nobody answers the keys must still be heard.
                let asked = tokio::select! {
                    asked = ask(&client) => asked,
                    wish = wishes.recv() => match wish {
                        Some(Wish::End) | None => return Ok(()),
                        Some(Wish::Now | Wish::Redraw) => continue,
                    },
                };
                match asked {
                    Ok(overview) => (shown, trouble) = (Some(overview), None),
                    Err(error) => trouble = Some(error.to_string()),
                }
            }
        }
    }
}
