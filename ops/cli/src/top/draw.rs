//! One screen: the facts, the zones side by side with what runs where, jobs by status, and what is away and why.

use crate::human;
use crate::overview::{Overview, bar, load_percent};
use crate::status::{facts, next_try};
use outlive_schemas::time::Timestamp;
use outlive_schemas::view::{ExecutorState, ExecutorView, Status, SystemStatus, ZoneState, ZoneView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

/// Zones next to one another; a cluster has three, and more than six would be too narrow to read.
const ZONES_SHOWN_MAX: usize = 6;

/// Draws what was found last, and what is in the way of finding more.
pub fn draw(frame: &mut Frame<'_>, overview: Option<&Overview>, trouble: Option<&str>, now: Timestamp) {
    let Some(overview) = overview else {
        let text = trouble.map_or_else(|| "asking …".to_owned(), human::printable);
        return frame.render_widget(Paragraph::new(text), frame.area());
    };
    let facts = fact_lines(&overview.status, trouble, now);
    let restarting = overview.status.restarting.len();
    let away_height = if restarting == 0 { 0 } else { restarting as u16 + 2 };
    let rows = Layout::vertical([
        Constraint::Length(facts.len() as u16),
        Constraint::Min(4),
        Constraint::Length(1),
        Constraint::Length(away_height.min(frame.area().height / 3)),
    ]);
    let [head, map, jobs, away] = rows.areas(frame.area());
    frame.render_widget(Paragraph::new(facts), head);
    zones(frame, map, overview);
    frame.render_widget(Paragraph::new(job_line(&overview.status)), jobs);
    if restarting > 0 {
        let block = Block::bordered().title("restarting");
        frame.render_widget(Paragraph::new(away_lines(&overview.status, now)).block(block), away);
    }
}

fn fact_lines(status: &SystemStatus, trouble: Option<&str>, now: Timestamp) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines: Vec<Line<'static>> = facts(status, now)
        .into_iter()
        .map(|(name, value)| {
            Line::from(vec![Span::styled(format!("{name:<19}"), bold), human::printable(&value).into()])
        })
        .collect();
    if let Some(trouble) = trouble {
        let text = format!("what is shown is old: {}", human::printable(trouble).replace('\n', " "));
        lines.push(Line::styled(text, Style::new().fg(Color::Red)));
    }
    lines
}

fn zones(frame: &mut Frame<'_>, area: Rect, overview: &Overview) {
    let zones = overview.zones();
    let shown = &zones[..zones.len().min(ZONES_SHOWN_MAX)];
    if shown.is_empty() {
        return frame.render_widget(Paragraph::new("no executor has joined yet"), area);
    }
    let columns = Layout::horizontal(shown.iter().map(|_| Constraint::Fill(1))).split(area);
    for ((zone, executors), column) in shown.iter().zip(columns.iter()) {
        let block = Block::bordered().title(zone_title(zone)).border_style(zone_style(zone.state));
        let inner = block.inner(*column);
        frame.render_widget(block, *column);
        frame.render_widget(Paragraph::new(executor_lines(executors, inner)), inner);
    }
}

fn zone_title(zone: &ZoneView) -> String {
    format!("zone {} {} · {} running", zone.zone, zone.state.as_str(), zone.running)
}

fn zone_style(state: ZoneState) -> Style {
    match state {
        ZoneState::Steady => Style::new().fg(Color::Green),
        ZoneState::Settling | ZoneState::Draining => Style::new().fg(Color::Yellow),
        ZoneState::Lost => Style::new().fg(Color::Red),
    }
}

/// A line for each executor; where there is no room for all, how many are left out.
fn executor_lines(executors: &[&ExecutorView], room: Rect) -> Vec<Line<'static>> {
    let height = usize::from(room.height);
    let fits = if executors.len() > height { height.saturating_sub(1) } else { executors.len() };
    let mut lines: Vec<Line<'static>> = executors[..fits].iter().map(|executor| executor_line(executor)).collect();
    if fits < executors.len() {
        lines.push(format!("… and {} more", executors.len() - fits).into());
    }
    lines
}

fn executor_line(executor: &ExecutorView) -> Line<'static> {
    let percent = load_percent(&executor.capacity, &executor.allocated);
    let colour = match executor.state {
        ExecutorState::Ready => Color::Green,
        ExecutorState::Suspect | ExecutorState::Degraded | ExecutorState::Draining => Color::Yellow,
        ExecutorState::Lost => Color::Red,
    };
    let state = match executor.state {
        ExecutorState::Ready => String::new(),
        other => format!(" {}", other.as_str()),
    };
    let load = if executor.state == ExecutorState::Lost { " ".repeat(10) } else { bar(percent) };
    Line::from(vec![
        Span::raw(format!("{} ", executor.name)),
        Span::styled(load, Style::new().fg(colour)),
        Span::raw(format!(" {:>3}", executor.running)),
        Span::styled(state, Style::new().fg(colour)),
    ])
}

fn job_line(status: &SystemStatus) -> Line<'static> {
    let mut spans = vec![Span::styled("Jobs               ", Style::new().add_modifier(Modifier::BOLD))];
    for (status, count) in status.jobs.iter().filter(|(_, count)| **count > 0) {
        let colour = match status {
            Status::Running | Status::Succeeded => Color::Green,
            Status::Failed => Color::Red,
            Status::Restarting | Status::RollingBack => Color::Yellow,
            Status::Pending | Status::Starting | Status::Updating | Status::Stopping => Color::Cyan,
            Status::Stopped | Status::Cancelled => Color::Gray,
        };
        spans.push(Span::styled(format!("{status} {count}"), Style::new().fg(colour)));
        spans.push("  ".into());
    }
    if spans.len() == 1 {
        spans.push("none".into());
    }
    Line::from(spans)
}

fn away_lines(status: &SystemStatus, now: Timestamp) -> Vec<Line<'static>> {
    let line = |job: &outlive_schemas::view::RestartingView| {
        let away = human::rough(now.since(job.since));
        let reason = human::printable(job.reason.as_deref().unwrap_or("-")).replace('\n', " ");
        let (name, next) = (format!("{}/{}", job.namespace, job.name), next_try(job.next_try_at, now));
        Line::from(format!("{name}  away {away}, {} restarts, next try {next}: {reason}", job.restarts))
    };
    status.restarting.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::example;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(width: u16, height: u16, overview: Option<&Overview>, trouble: Option<&str>) -> String {
        let now = Timestamp::parse("2026-01-01T00:01:00Z").expect("a time");
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, overview, trouble, now)).expect("drawn");
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_zones_stand_side_by_side_with_what_runs_where() {
        let shown = screen(92, 17, Some(&example()), None);
        assert_eq!(
            shown,
            "\
Cluster            dev (0.1.0)
Leader             scheduler-a in zone a, since 2026-01-01T00:00:00.000Z (1m ago)
Term               7
Log                1 to 120, 40.0 KiB
Witness            118 (2 behind)
Stream leader      nats-b in zone b
Oldest checkpoint  12 of default/digest, 40s ago
┌zone a steady · 4 running───────────────────┐┌zone b lost · 0 running─────────────────────┐
│executor-a-1 ###.......   3                 ││executor-b-1              0 lost            │
│executor-a-2 #.........   1 draining        ││                                            │
│                                            ││                                            │
│                                            ││                                            │
└────────────────────────────────────────────┘└────────────────────────────────────────────┘
Jobs               running 4  restarting 1  failed 1
┌restarting────────────────────────────────────────────────────────────────────────────────┐
│default/counter  away 12s, 3 restarts, next try in 4.0s: exit code 1                      │
└──────────────────────────────────────────────────────────────────────────────────────────┘"
        );
    }

    #[test]
    fn it_fits_any_screen_and_says_what_is_in_its_way() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            screen(width, height, Some(&example()), Some("NATS cannot be reached"));
            screen(width, height, None, None);
        }
        let shown = screen(92, 20, Some(&example()), Some("NATS at x\ncannot be reached"));
        assert!(shown.contains("what is shown is old: NATS at x cannot be reached"), "{shown}");
        assert_eq!(screen(20, 1, None, None), "asking …");
    }

    #[test]
    fn more_executors_than_lines_are_counted() {
        let mut overview = example();
        let one = overview.executors[0].clone();
        overview.executors = (0..50).map(|_| one.clone()).collect();
        let shown = screen(92, 17, Some(&overview), None);
        assert!(shown.contains("… and 47 more"), "{shown}");
    }
}
