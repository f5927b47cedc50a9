//! Configurations: text, kinds of values, and what is checked in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(document) = moirai_config::parse("fuzz.toml", text) else { return };
    match moirai_config::check(&document) {
        Ok(_) => {}
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let report = moirai_config::Report::locate("fuzz.toml", text, problems);
            assert!(!report.to_string().is_empty());
        }
    }
});
