//! The live screen of `moirai top`; q or Ctrl-C leaves, Ctrl-Z stops it as in any other program.

use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::Constraint;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Row as TableRow, Table};

use super::view::{HEADS, Row, View, WIDTHS};
use crate::{Failure, Status, signals, terminal};
use moirai_api::Stats;
use moirai_api::client::Client;
use moirai_config::units::Time;

/// What leaves the screen and shows the cursor, and what enters it again.
const LEAVE: &[u8] = b"\x1b[?1049l\x1b[?25h";
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";

pub(super) fn run(client: &Client, interval: Duration) -> Result<Status, Failure> {
    let first: Stats = client.get("/v1/stats")?;
    terminal::give_back_at_the_end(restore, LEAVE, ENTER)?;
    terminal::end_with_the_terminal()?;
    let mut terminal = ratatui::try_init()?;
    let ended = show(&mut terminal, client, interval, first);
    restore();
    ended.map(|()| Status::Done)
}

/// Gives the terminal back as it was: `ratatui` leaves the cursor hidden.
fn restore() {
    signals::forget();
    ratatui::restore();
    // Whoever has closed the terminal needs no cursor.
    let _ = execute!(std::io::stdout(), cursor::Show);
}

fn show(
    terminal: &mut DefaultTerminal,
    client: &Client,
    interval: Duration,
    mut before: Stats,
) -> Result<(), Failure> {
    let mut view = View::between(&before, &before);
    loop {
        let end = moirai_runtime::instant() + interval;
        loop {
            terminal.draw(|frame| frame.render_widget(table(&view), frame.area()))?;
            match wish(end)? {
                Wish::Leave => return Ok(()),
                Wish::Stop => signals::suspend(),
                // What was drawn is not there any more. Not `Terminal::clear`, which asks the
                // terminal where its cursor is and waits for an answer.
                Wish::Draw => {
                    terminal.backend_mut().clear()?;
                    terminal.swap_buffers();
                }
                Wish::Look => break,
            }
        }
        let after: Stats = client.get("/v1/stats")?;
        view = View::between(&before, &after);
        before = after;
    }
}

/// What the person at the terminal wants, or time.
enum Wish {
    Leave,
    Stop,
    Draw,
    Look,
}

/// Waits for a wish, at most to `end`.
fn wish(end: Instant) -> Result<Wish, Failure> {
    while event::poll(end.saturating_duration_since(moirai_runtime::instant()))? {
        match event::read()? {
            Event::Key(key) => match (key.modifiers, key.code) {
                (KeyModifiers::CONTROL, KeyCode::Char('c')) => return Ok(Wish::Leave),
                (KeyModifiers::CONTROL, KeyCode::Char('z')) => return Ok(Wish::Stop),
                (_, KeyCode::Char('q') | KeyCode::Esc) => return Ok(Wish::Leave),
                _ => {}
            },
            Event::Resize(..) => return Ok(Wish::Draw),
            _ => {}
        }
    }
    Ok(Wish::Look)
}

fn table(view: &View) -> Table<'static> {
    let rows = view.rows.iter().map(|row| TableRow::new(row.cells()).style(style(row)));
    let widths = WIDTHS.map(|width| Constraint::Min(u16::try_from(width).unwrap_or(u16::MAX)));
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let (late, stall) = (Time(view.late_max_ns), Time(view.stall_ns));
    let foot = format!(" latest dispatcher timer {late}; machine stood still {stall}; q leaves ");
    let others = match view.troubles().count() {
        0 | 1 => String::new(),
        count => format!("(and {} more: moirai top --once) ", count - 1),
    };
    let trouble = view.troubles().next_back().map(|trouble| format!(" {trouble} {others}"));
    let title = trouble.unwrap_or_else(|| " moirai ".to_owned());
    Table::new(rows, widths)
        .header(TableRow::new(HEADS).style(bold))
        .block(Block::bordered().title(title).title_bottom(Line::from(foot)))
}

/// A part with misses, or whose contract is not kept, is red, one with a guarantee stands out from
/// best effort.
fn style(row: &Row) -> Style {
    if row.misses > 0 || row.not_kept.is_some() {
        Style::new().fg(Color::Red)
    } else if row.reserved > 0 {
        Style::new().fg(Color::Green)
    } else {
        Style::new()
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use moirai_api::{PartStats, TenantStats};

    #[test]
    fn the_screen_shows_what_is_owed_and_what_was_given() {
        let look = |now_ns, guaranteed_ns| {
            let part = PartStats {
                resource: "cpu/1".to_owned(),
                reserved: 300_000_000,
                guaranteed_ns,
                queued: 7,
                ..PartStats::default()
            };
            let tenants = vec![TenantStats { name: "cinema".into(), parts: vec![part] }];
            Stats { now_ns, tenants, ..Stats::default() }
        };
        let view = View::between(&look(0, 0), &look(1_000_000_000, 250_000_000));
        let mut terminal = Terminal::new(TestBackend::new(120, 5)).expect("a terminal");
        terminal.draw(|frame| frame.render_widget(table(&view), frame.area())).expect("drawn");
        insta::assert_snapshot!(terminal.backend(), @r#"
    "┌ moirai ──────────────────────────────────────────────────────────────────────────────────────────────────────────────┐"
    "│TENANT           RESOURCE       CONTRACT                 OWED     GUARANTEED EXTRA    MISSES  QUEUE   KB/S      KEPT  │"
    "│cinema           cpu/1                                   30.00%   25.00%     0.00%    0       7       0         yes   │"
    "│                                                                                                                      │"
    "└ latest dispatcher timer 0ns; machine stood still 0ns; q leaves ──────────────────────────────────────────────────────┘"
    "#);
    }
}
