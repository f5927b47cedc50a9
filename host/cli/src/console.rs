//! `moirai console`: shows a tenant's console and types on it.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::Method;
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use serde::Deserialize;

use super::args::ConsoleArgs;
use super::control::{hint, path};
use super::{Failure, Status, output, signals, terminal, unwritten};
use moirai_api::client::Client;

/// Ctrl-].
const LEAVE: u8 = 0x1d;

#[derive(Deserialize)]
struct Typed {
    taken: usize,
}

pub(super) fn run(socket: &Path, args: &ConsoleArgs) -> Result<Status, Failure> {
    let path = format!("{}/console", path("tenants", &args.name)?);
    let follow = if args.once { "" } else { "?follow=true" };
    let client = Client::new(socket)?;
    let keyboard = !args.once && std::io::stdin().is_terminal();
    let raw = keyboard.then(RawMode::enter).transpose()?;
    if !args.once {
        terminal::end_with_the_reader()?;
    }
    if keyboard {
        terminal::end_with_the_terminal()?;
    }
    if keyboard {
        let (socket, path) = (socket.to_owned(), path.clone());
        std::thread::spawn(move || type_on(&socket, &path));
    }
    let mut broken = None;
    let followed = client.stream(&format!("{path}{follow}"), |bytes| {
        let shown = show(bytes, keyboard);
        let go_on = shown.is_ok() && !LEFT.load(Ordering::Relaxed);
        broken = shown.err();
        go_on
    });
    drop(raw);
    followed.map_err(|error| hint(&client, &args.name, error))?;
    broken.map_or(Ok(Status::Done), |error| Err(unwritten(&error)))
}

/// Writes output; a raw terminal needs a carriage return with each line feed.
fn show(bytes: &[u8], raw: bool) -> std::io::Result<()> {
    let mut out = output()?;
    if raw {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(line) => out.write_all(line).and_then(|()| out.write_all(b"\r\n"))?,
                None => out.write_all(part)?,
            }
        }
    } else {
        out.write_all(bytes)?;
    }
    out.flush()
}

/// Set when the person wants to leave.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Sends what is typed until Ctrl-], then ends the command: the stream may wait for ever.
fn type_on(socket: &Path, path: &str) {
    if let Err(failure) = send_keys(socket, path) {
        tracing::debug!(message = failure.message, "the keyboard is lost");
        return;
    }
    LEFT.store(true, Ordering::Relaxed);
    // The terminal is given back first; nothing else of this process needs an orderly end.
    give_back();
    std::process::exit(Status::Done as i32);
}

fn send_keys(socket: &Path, path: &str) -> Result<(), Failure> {
    let client = Client::new(socket)?;
    let mut keys = [0u8; 256];
    loop {
        let length = std::io::stdin().read(&mut keys)?;
        let typed = keys.get(..length).unwrap_or_default();
        let leave = typed.iter().position(|key| *key == LEAVE);
        let typed = typed.get(..leave.unwrap_or(length)).unwrap_or_default();
        if !typed.is_empty() {
            let answer: Typed = client.ask(Method::POST, path, typed.to_vec().into())?;
            if answer.taken < typed.len() {
                // The bell says that the guest does not read.
                show(b"\x07", true)?;
            }
        }
        if leave.is_some() || length == 0 {
            return Ok(());
        }
    }
}

/// The terminal hands over every key as long as the value lives.
struct RawMode;

impl RawMode {
    fn enter() -> Result<Self, Failure> {
        terminal::give_back_at_the_end(give_back, b"", b"")?;
        enable_raw_mode()?;
        Ok(Self)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    signals::forget();
    // Without a terminal there is nothing to give back.
    let _ = disable_raw_mode();
}
