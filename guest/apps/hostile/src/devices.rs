//! Attacks on whole devices: registers, kicks, resets, requests that a device must refuse.

use alloc::vec::Vec;
use moirai_sdk::{App, AppError, MS, now};

use crate::device::{
    ACKNOWLEDGE, DRIVER, FEATURES_OK, NEXT, QUEUE_NOTIFY, Rig, STATUS, Verdict, WRITE, Window,
};
use crate::{Random, Score};

/// Time of the attacks that go on for a while.
const LONG_NS: u64 = 1500 * MS;
/// Windows that no machine has devices for are attacked too.
const WINDOW_BYTES: u64 = 0x1000;

/// Kicks every queue in every status before DRIVER_OK.
pub(crate) fn early_kick(app: &App) -> Result<Score, AppError> {
    let mut score = Score::default();
    for mut rig in Rig::all(app)? {
        for status in [0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, ACKNOWLEDGE | DRIVER | FEATURES_OK] {
            rig.window.write(STATUS, 0);
            match status & FEATURES_OK {
                0 => rig.window.write(STATUS, status),
                _ => rig.negotiate()?,
            }
            for queue in [0, 1, 2, 0xffff, u32::MAX] {
                rig.window.write(QUEUE_NOTIFY, queue);
                score.rounds += 1;
            }
        }
        score.recovered += u64::from(rig.recovers()?);
    }
    Ok(score)
}

/// Garbage of all widths to all registers of all devices, by a seed.
pub(crate) fn registers(app: &App, count: u64, seed: u64) -> Result<Score, AppError> {
    let mut random = Random::new(seed);
    let windows: Vec<Window> = Window::all(app).collect();
    let mut score = Score::default();
    for _ in 0..count {
        let Some(window) = windows.get(random.below(windows.len() as u64)) else { break };
        // Most of it among the registers that mean something, some of it anywhere in the window.
        let span = if random.below(8) == 0 { WINDOW_BYTES - 8 } else { 0x108 };
        let (mut offset, mut width) = (random.below(span), 2);
        let mut value = random.next();
        match random.below(4) {
            0 => width = u32::try_from(random.below(4)).unwrap_or(0),
            1 => (offset, value) = (STATUS, value & 0xf), // so that it gets somewhere
            _ => offset &= !3,
        }
        window.poke(offset, width, value);
        score.rounds += 1;
    }
    for mut rig in Rig::all(app)? {
        score.recovered += u64::from(rig.recovers()?);
    }
    Ok(score)
}

/// Resets devices while they work, again and again.
pub(crate) fn reset_midway(app: &App) -> Result<Score, AppError> {
    let mut rigs = Rig::all(app)?;
    let (mut score, end) = (Score::default(), now() + LONG_NS);
    while now() < end {
        for rig in &mut rigs {
            rig.start()?;
            for at in 0..64 {
                rig.honest(3 * at);
                rig.offer(3 * at);
            }
            rig.kick();
            rig.window.write(STATUS, 0);
            score.rounds += 1;
        }
    }
    for rig in &mut rigs {
        score.recovered += u64::from(rig.recovers()?);
    }
    Ok(score)
}

/// Breaks devices and resets them as fast as it goes: every failure costs the host something.
pub(crate) fn restart(app: &App) -> Result<Score, AppError> {
    let mut rigs = Rig::all(app)?;
    let (mut score, end) = (Score::default(), now() + LONG_NS);
    while now() < end {
        for rig in &mut rigs {
            rig.start()?;
            rig.offer(u16::MAX);
            rig.kick();
            score.count(rig.verdict());
        }
    }
    for rig in &mut rigs {
        score.recovered += u64::from(rig.recovers()?);
    }
    Ok(score)
}

/// Keeps every ring full of requests that are refused, and rings every doorbell all the time.
pub(crate) fn spam(app: &App) -> Result<Score, AppError> {
    let mut rigs = Rig::all(app)?;
    for rig in &mut rigs {
        rig.start()?;
        let header = rig.address(crate::device::HEADER);
        let status = rig.address(crate::device::STATUS_BYTE);
        rig.put(crate::device::HEADER, &[0xff; 16]);
        for at in 0..128 {
            rig.describe(2 * at, (header, 16), NEXT, 2 * at + 1);
            rig.describe(2 * at + 1, (status, 1), WRITE, 0);
        }
    }
    let (mut score, end) = (Score::default(), now() + LONG_NS);
    while now() < end {
        for rig in &mut rigs {
            let used = rig.used();
            while rig.offered().wrapping_sub(used) < 128 {
                let at = rig.offered() % 128;
                rig.offer(2 * at);
                score.rounds += 1;
            }
            rig.kick();
        }
    }
    for rig in &mut rigs {
        score.count(if rig.used() > 0 { Verdict::Answered } else { Verdict::Silent });
        score.recovered += u64::from(rig.recovers()?);
    }
    Ok(score)
}
