//! Every key, with every wrong value: what is said has a place, no names of the program, and an
//! example that is right where it is pasted.

use toml::{Table, Value};

use super::{all_keys, check_words};
use crate::{Problem, Report, check, parse};

/// A good configuration, in which a key can be set.
const GOOD: &str = r#"
[host]
cores = [1]
[[disk]]
name = "ssd"
path = "/srv/volumes"
bandwidth = "400MB/s"
[[link]]
name = "up"
rate = "100Mbit/s"
[[tenant]]
name = "cinema"
image = "streamer"
cpu = { period = "10ms", slice = "2ms" }
disk = [{ disk = "ssd", volume = "film.ts", period = "10ms", slice = "2ms" }]
net = [{ link = "up", period = "10ms", slice = "2ms" }]
[[export]]
name = "vm"
socket = "/run/moirai/vm.sock"
net = { link = "up" }
"#;

/// Keys that another one excludes, by the end of its path; and what it needs.
const INSTEAD: &[(&str, &[&str])] = &[
    ("kernel", &["image"]),
    ("initrd", &["image"]),
    ("rate", &["slice"]),
    ("stripe", &["volume"]),
    ("stripe.files", &["volume"]),
    ("stripe.unit", &["volume"]),
];

/// A load that has the parameter.
const LOADS: &[(&str, &str)] = &[
    ("kind", "kind = \"busy\""),
    ("period", "kind = \"periodic\"\nwork = \"1ms\""),
    ("work", "kind = \"single\""),
    ("phase", "kind = \"periodic\"\nperiod = \"10ms\"\nwork = \"1ms\""),
    ("unit", "kind = \"busy\""),
    ("gap", "kind = \"random\"\nwork = \"1ms\""),
    ("count", "kind = \"bursty\"\ngap = \"10ms\"\nwork = \"1ms\""),
    ("on", "kind = \"on-off\"\noff = \"1ms\""),
    ("off", "kind = \"on-off\"\non = \"1ms\""),
    ("think", "kind = \"single\"\nwork = \"1ms\""),
    ("pause", "kind = \"latency-thief\""),
    ("announced", "kind = \"inflate\""),
    ("flush", "kind = \"writes\""),
    ("length", "kind = \"host-stall\"\ngap = \"1s\""),
];

/// One value of each kind that TOML has, and values at the ends of kinds.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "true",
        "-1",
        "0",
        "70000",
        "5000000000",
        "9223372036854775807",
        "99999999999999999999",
        "-99999999999999999999",
        "0xFFFFFFFFFFFFFFFFF",
        "1.5",
        "-0.0",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "1979-05-27",
        "07:32:00",
        "1979-05-27T07:32:00Z",
        "\"\"",
        "\" \"",
        "\"no such thing\"",
        "\"a\\u0000b\"",
        "\"99999999999999999999s\"",
        "\"0%\"",
        "\"0B\"",
        "\"-5ms\"",
        "\"7M\"",
        "\"a/../b\"",
        "[]",
        "[3]",
        "[nan]",
        "[1979-05-27]",
        "[\"\"]",
        "[[]]",
        "[{ x = [] }]",
        "[{ name = nan }]",
        "{}",
        "{ a = 1 }",
        "{ period = nan }",
        "{ unit = nan, files = [nan] }",
        "{ cpu = { period = inf } }",
        "{ cid = 1979-05-27 }",
    ]
    .map(str::to_owned)
    .into();
    values.push(format!("\"{}\"", "long".repeat(2000)));
    values.push(format!("{}1{}", "[".repeat(60), "]".repeat(60)));
    values.push(format!("{}1{}", "{ a = ".repeat(40), " }".repeat(40)));
    values
}

/// The table above the last key of a path; what is not there is made. Of a list it is the first
/// one.
fn above<'a>(document: &'a mut Table, path: &[String]) -> &'a mut Table {
    let mut table = document;
    for key in &path[..path.len() - 1] {
        let value = table.entry(key).or_insert_with(|| Value::Table(Table::new()));
        table = match value {
            Value::Array(items) => items[0].as_table_mut().expect("a table"),
            value => value.as_table_mut().expect("a table"),
        };
    }
    table
}

/// The good configuration with `@` at that key.
fn with_key(path: &[String]) -> Table {
    let mut document: Table = toml::from_str(GOOD).expect("good");
    let whole = path.join(".");
    if whole.starts_with("export.disk") {
        document["export"][0].as_table_mut().expect("a table").remove("net");
        let volume = "disk = { disk = \"ssd\", volume = \"film.ts\" }";
        let volume: Table = toml::from_str(volume).expect("a volume");
        document["export"][0].as_table_mut().expect("a table").extend(volume);
    }
    let key = path.last().expect("a key");
    if path.len() == 4 && path[1] == "load" {
        let (_, load) = LOADS.iter().find(|(name, _)| name == key).expect("a load that has it");
        above(&mut document, path).extend(toml::from_str::<Table>(load).expect("a load"));
    }
    for (_, others) in INSTEAD.iter().filter(|(end, _)| whole.ends_with(end)) {
        let depth = path.len() - usize::from(whole.contains("stripe."));
        let table = above(&mut document, &path[..depth]);
        others.iter().for_each(|other| drop(table.remove(*other)));
    }
    let table = above(&mut document, path);
    match key.as_str() {
        "initrd" => drop(table.insert("kernel".to_owned(), "/srv/vmlinux".into())),
        "files" | "unit" if whole.contains("stripe") => {
            table.insert("files".to_owned(), vec!["a", "b"].into());
        }
        "rate" | "deadline" | "slice" if whole != "link.rate" => {
            table.insert("period".to_owned(), "10ms".into());
        }
        _ => {}
    }
    above(&mut document, path).insert(key.clone(), "@".into());
    document
}

/// Everything that is wrong with the text, wherever it is found.
fn wrong(text: &str) -> Option<Report> {
    let document = match parse("bad.toml", text) {
        Err(report) => return Some(report),
        Ok(document) => document,
    };
    check(&document).err().map(|problems| Report::locate("bad.toml", text, problems))
}

/// What the advice says to write, as a value, and whether it is that of the whole key.
fn advised(help: &str) -> Option<(Value, bool)> {
    let (_, rest) = help.split_once("write for example ")?;
    let ends = rest.match_indices([':', ';', ',']).map(|(at, _)| at).chain([rest.len()]);
    ends.map(|end| &rest[..end]).find_map(|text| {
        // First as a value: a list of one number is also the head of a table.
        if let Ok(line) = toml::from_str::<Table>(&format!("value = {text}")) {
            return Some((line["value"].clone(), false));
        }
        let (_, value) = toml::from_str::<Table>(text).ok()?.into_iter().next()?;
        Some((value, true))
    })
}

/// Puts the value at a path such as `tenant[0].disk[1].queues`.
fn put(document: &mut Value, path: &str, value: Value) {
    let parts: Vec<_> = path.split(['.', '[']).map(|part| part.trim_end_matches(']')).collect();
    let (last, above) = parts.split_last().expect("a key");
    let place = above.iter().fold(document, |value, part| match value {
        Value::Array(items) => &mut items[part.parse::<usize>().expect("a number")],
        value => &mut value[*part],
    });
    match place {
        Value::Array(items) => items[last.parse::<usize>().expect("a number")] = value,
        Value::Table(table) => drop(table.insert((*last).to_owned(), value)),
        other => panic!("{path}: {other}"),
    }
}

/// Pastes what `problem` advises and says what is wrong then at the same place.
fn pasted(document: &Table, text: &str, wrong_value: &str, problem: &Problem) -> Option<String> {
    let (value, whole) = advised(&problem.help)?;
    let place = match whole {
        true => problem.path.trim_end_matches(|c: char| c.is_ascii_digit() || "[]".contains(c)),
        false => problem.path.as_str(),
    };
    // Where a number is wrong that no value holds, it is that of the key.
    let mut mended =
        toml::from_str(text).map_or_else(|_| Value::Table(document.clone()), Value::Table);
    put(&mut mended, place, value);
    let mended = toml::to_string(&mended).expect("TOML");
    let still = wrong(&mended);
    let still = still.iter().flat_map(Report::problems);
    let still = still.filter(|it| it.path.starts_with(place)).collect::<Vec<_>>();
    assert!(still.is_empty(), "{wrong_value} at {}: {}\n{still:?}", problem.path, problem.help);
    Some(mended)
}

#[test]
fn whatever_is_written_what_is_said_has_a_place_and_advice_that_is_right_when_pasted() {
    let mut tried = 0;
    for path in all_keys() {
        let document = with_key(&path);
        let blank = toml::to_string(&document).expect("TOML");
        for value in values() {
            let text = blank.replace("\"@\"", &value);
            let Some(report) = wrong(&text) else { continue };
            assert!(report.to_string().contains("[bad.toml:"), "{path:?} {value}: {report}");
            for problem in report.problems() {
                let said = format!("{} {}", problem.message, problem.help);
                check_words(&said, &format!("{path:?} = {value:.40}"));
                tried += usize::from(pasted(&document, &text, &value, problem).is_some());
            }
        }
    }
    assert!(tried > 5000, "{tried}");
}

#[test]
fn every_key_has_a_right_value_to_offer() {
    for path in all_keys() {
        let document = with_key(&path);
        let text = toml::to_string(&document).expect("TOML").replace("\"@\"", "nan");
        let report = wrong(&text).unwrap_or_else(|| panic!("{path:?}"));
        let [problem] = report.problems().collect::<Vec<_>>()[..] else {
            panic!("{path:?}: {report}")
        };
        assert_eq!(super::super::keys_of(&problem.path), path.join("."));
        let mended = pasted(&document, &text, "nan", problem).expect("advice");
        // Not even elsewhere: nothing but the value was wrong.
        assert!(
            wrong(&mended).is_none(),
            "{path:?}: {}\n{}",
            problem.help,
            wrong(&mended).unwrap()
        );
    }
}
