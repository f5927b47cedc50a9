//! `moirai simulate`: what it reports, draws and refuses.

use std::process::Command;

use serde_json::Value;

/// One core, one disk, one link; an honest tenant and one that lives on slack.
const WORLD: &str = include_str!("world.toml");

/// Simulates `text`; returns exit status, standard output and standard error.
fn simulate(text: &str, words: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = super::file(&folder, text);
    let path = path.to_str().unwrap();
    let output = super::moirai(&[&["simulate", path, "--seconds", "2"], words].concat());
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(path, "FILE");
    (output.status.code().unwrap(), said(&output.stdout), said(&output.stderr))
}

fn result(text: &str, words: &[&str]) -> Value {
    let (status, out, err) = simulate(text, &[&["--json"], words].concat());
    assert_eq!((status, err.as_str()), (0, ""));
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn the_last_line_is_an_object_with_what_every_tenant_got_of_every_resource() {
    let result = result(WORLD, &["--seed", "7"]);
    for key in ["decisions", "idle_ns", "overhead_ns"] {
        assert!(result[key].is_u64(), "{key}: {result}");
    }
    assert!(result["jain"].is_number());
    let honest = &result["tenants"][0];
    assert_eq!(honest["name"], "honest");
    for resource in ["cpu", "disk", "link"] {
        for key in [
            "guaranteed_ns",
            "extra_ns",
            "misses",
            "max_lateness_ns",
            "max_blackout_ns",
            "wake_p99_ns",
        ] {
            assert!(honest[resource][key].is_u64(), "{resource}.{key}: {honest}");
        }
        assert_eq!(honest[resource]["misses"], 0);
    }
    assert_eq!(honest["cpu"]["guaranteed_ns"], 500_000_000);
    assert_eq!(result["tenants"][1]["disk"], Value::Null);
}

#[test]
fn equal_seeds_give_equal_bytes_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seed: &str| {
        let (svg, trace) = (folder.path().join("o.svg"), folder.path().join("o.json"));
        let files = ["--svg", svg.to_str().unwrap(), "--trace", trace.to_str().unwrap()];
        let (status, out, _) = simulate(WORLD, &[&["--json", "--seed", seed], &files[..]].concat());
        assert_eq!(status, 0);
        (out, std::fs::read(svg).unwrap(), std::fs::read(trace).unwrap())
    };
    let first = run("5");
    assert!(first == run("5"));
    assert!(first.0 != run("6").0);
}

#[test]
fn a_trace_is_json_of_events_and_a_picture_is_svg() {
    let folder = tempfile::tempdir().unwrap();
    let (svg, trace) = (folder.path().join("o.svg"), folder.path().join("o.json"));
    let files = ["--svg", svg.to_str().unwrap(), "--trace", trace.to_str().unwrap()];
    let (status, out, err) = simulate(WORLD, &files);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.starts_with("TENANT") && out.contains("honest"), "{out}");
    let trace: Value = serde_json::from_slice(&std::fs::read(trace).unwrap()).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().iter().any(|event| event["ph"] == "X"));
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.contains("honest (cpu/1)") && svg.ends_with("</svg>\n"));
    assert_eq!(simulate(WORLD, &["--svg", "/nowhere/o.svg"]).0, 1);
}

#[test]
fn another_policy_gives_another_result() {
    let fifo = result(WORLD, &["--policy", "fifo"]);
    assert!(fifo["tenants"][0]["cpu"]["max_lateness_ns"].as_u64().unwrap() > 0, "{fifo}");
    for policy in moirai_scheduler::POLICIES {
        result(WORLD, &["--policy", policy]);
    }
    let (status, _, err) = simulate(WORLD, &["--policy", "edf"]);
    assert_eq!(status, 2);
    assert!(err.contains("edf-channel"), "{err}");
}

#[test]
fn a_set_that_is_not_admitted_is_simulated_with_a_warning() {
    let text = WORLD.replace("slice = \"3ms\"", "slice = \"9.9ms\"").replace("2.5ms", "9.9ms");
    let (status, out, err) = simulate(&text, &["--json"]);
    assert_eq!(status, 0);
    assert!(err.starts_with("moirai: honest would not be admitted: cpu/1"), "{err}");
    assert!(serde_json::from_str::<Value>(&out).is_ok());
}

#[test]
fn a_bad_load_ends_with_two_and_points_at_the_line() {
    let said = |load: &str| {
        let text =
            WORLD.replace("{ kind = \"periodic\", period = \"10ms\", work = \"2.5ms\" }", load);
        let (status, out, err) = simulate(&text, &["--json"]);
        assert_eq!((status, out.as_str()), (2, ""), "{err}");
        err
    };
    insta::assert_snapshot!(said("{ kind = \"periodic\", period = \"10ms\" }"), @r#"
    moirai: the configuration is bad
      × `work` is missing
        ╭─[FILE:33:7]
     32 │ [tenant.load]
     33 │ cpu = { kind = "periodic", period = "10ms" }
        ·       ──────────────────────────────────────
     34 │ disk = { kind = "single", work = "800us", think = "20us" }
        ╰────
      help: kind `periodic` needs period, work
    "#);
    insta::assert_snapshot!(said("{ kind = \"idle\", work = \"1ms\" }"), @r#"
    moirai: the configuration is bad
      × a load of kind `idle` has no `work`
        ╭─[FILE:33:31]
     32 │ [tenant.load]
     33 │ cpu = { kind = "idle", work = "1ms" }
        ·                               ─────
     34 │ disk = { kind = "single", work = "800us", think = "20us" }
        ╰────
      help: remove it
    "#);
    for (load, message) in [
        ("{ kind = \"sleepy\" }", "`kind` has no \"sleepy\": expected one of `idle`, `busy`"),
        ("{ period = \"10ms\" }", "missing key `kind`"),
        ("{ kind = \"busy\", units = 3 }", "unknown key `units`"),
        ("{ kind = \"busy\", unit = \"3 parsecs\" }", "\"parsecs\" is not a unit"),
        ("{ kind = \"single\", work = \"0ms\" }", "`work` is zero"),
        ("{ kind = \"single\", work = \"-1ms\" }", "is negative"),
        ("{ kind = \"single\", work = \"1500min\" }", "longer than a day"),
        ("{ kind = \"bursty\", gap = 1, work = 1, count = 100001 }", "more than 100000"),
        ("\"busy\"", "`cpu` takes a table"),
    ] {
        let err = said(load);
        assert!(err.contains(message) && err.contains("FILE:"), "{load}: {err}");
    }
}

#[test]
fn seconds_that_make_no_simulation_are_refused() {
    for seconds in ["0", "86401", "-1", "1.5"] {
        let output = super::moirai(&["simulate", "/nowhere", "--seconds", seconds]);
        assert_eq!(output.status.code(), Some(2), "{seconds}");
    }
}

#[test]
fn the_examples_of_the_document_run() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/loads.md");
    let text = std::fs::read_to_string(document).unwrap();
    let examples = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut run = 0;
    for example in examples {
        let (status, _, err) = simulate(example, &["--json"]);
        assert_eq!(status, 0, "{example}\n{err}");
        run += 1;
    }
    assert!(run > 0, "{document} has no examples");
}

#[test]
fn a_load_is_no_matter_for_a_plan() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::file(&folder, WORLD);
    let output = Command::new(env!("CARGO_BIN_EXE_moirai")).arg("plan").arg(path).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
