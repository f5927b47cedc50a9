//! The live screen of `moirai top`; q or Ctrl-C leaves.

use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::Constraint;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row as TableRow, Table};

use super::top::{HEADS, Row, View, WIDTHS};
use super::{Failure, Status};
use crate::client::Client;
use crate::config::units::Time;
use crate::service::Stats;

pub(super) fn run(client: &Client, interval: Duration) -> Result<Status, Failure> {
    let first: Stats = client.get("/v1/stats")?;
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, client, interval, first);
    ratatui::restore();
    ended.map(|()| Status::Done)
}

fn show(
    terminal: &mut DefaultTerminal,
    client: &Client,
    interval: Duration,
    mut before: Stats,
) -> Result<(), Failure> {
    let mut view = View::between(&before, &before);
    loop {
        terminal.draw(|frame| frame.render_widget(table(&view), frame.area()))?;
        if leaves(interval)? {
            return Ok(());
        }
        let after: Stats = client.get("/v1/stats")?;
        view = View::between(&before, &after);
        before = after;
    }
}

/// Waits for the end of the interval; true if the person wants to leave.
fn leaves(interval: Duration) -> Result<bool, Failure> {
    let end = Instant::now() + interval;
    while event::poll(end.saturating_duration_since(Instant::now()))? {
        if let Event::Key(key) = event::read()? {
            let interrupted =
                key.modifiers == KeyModifiers::CONTROL && key.code == KeyCode::Char('c');
            if interrupted || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn table(view: &View) -> Table<'static> {
    let rows = view.rows.iter().map(|row| TableRow::new(row.cells()).style(style(row)));
    let widths = WIDTHS.map(|width| Constraint::Min(u16::try_from(width).unwrap_or(u16::MAX)));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (late, stall) = (Time(view.late_max_ns), Time(view.stall_ns));
    let foot = format!(" latest dispatcher timer {late}; machine stood still {stall}; q leaves ");
    Table::new(rows, widths)
        .header(TableRow::new(HEADS).style(bold))
        .block(Block::bordered().title(" moirai ").title_bottom(Line::from(foot)))
}

/// A part with misses is red, one with a guarantee stands out from best effort.
fn style(row: &Row) -> Style {
    if row.misses > 0 {
        Style::new().fg(Color::Red)
    } else if row.reserved > 0 {
        Style::new().fg(Color::Green)
    } else {
        Style::new()
    }
}
