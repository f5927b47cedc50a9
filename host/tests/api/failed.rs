//! A tenant that has failed does not look as if it were well, whoever asks.

use serde_json::Value;

use super::peer::{Host, get};

#[test]
fn a_tenant_that_has_failed_is_told_as_such_everywhere_until_it_is_forgotten() {
    let host = Host::start();
    let image = host.folder().join("image");
    std::fs::write(&image, "no kernel").unwrap();
    let body = format!(
        "{{\"tenant\": [{{\"name\": \"a\", \"image\": \"{}\", \"cpu\": {{\"period\": \"10ms\", \
         \"slice\": \"1ms\"}}}}]}}",
        image.display()
    );
    let json = |answer: (u16, String)| -> Value {
        assert_eq!(answer.0, 200, "{}", answer.1);
        serde_json::from_str(&answer.1).unwrap()
    };
    let launched = json(host.post("/v1/tenants", &body));
    let shown = json(host.ask(&get("/v1/tenants/a")));
    let listed = json(host.ask(&get("/v1/tenants")));
    for view in [&launched[0], &shown, &listed[0]] {
        assert_eq!(
            (&view["phase"], &view["end"]["ok"]),
            (&"ended".into(), &false.into()),
            "{view}"
        );
        assert_eq!(view["kept"], false, "{view}");
        assert!(view["because"].as_str().unwrap().starts_with("it has failed: "), "{view}");
    }
    let promised = json(host.ask(&get("/v1/tenants/a/explain")));
    assert_eq!(promised["kept"], false, "{promised}");
    assert_eq!(promised["ended"], shown["end"]["reason"], "{promised}");
    assert_eq!(json(host.ask(&get("/v1/host")))["failed"], 1);
    let stats = json(host.ask(&get("/v1/stats")));
    assert_eq!(stats["failed"][0]["name"], "a", "{stats}");
    assert!(host.ask(&get("/metrics")).1.contains("moirai_tenant_failed{name=\"a\"} 1\n"));

    for (words, said) in [
        ("list", "failed"),
        ("show a", "phase      failed\nbecause"),
        ("explain a", "a: has ended, so that nothing is promised to it any more"),
        ("top --once --interval 0.1", "failed: a: "),
        ("stop a", "phase      failed\nbecause"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_moirai"));
        command.arg("--socket").arg(host.socket()).args(words.split(' '));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(said), "{words}: {output:?}");
        let wanted = if words.ends_with(" a") && !words.starts_with("explain") { 5 } else { 0 };
        assert_eq!(output.status.code(), Some(wanted), "{words}: {output:?}");
    }
    assert_eq!(json(host.ask(&get("/v1/host")))["failed"], 0);
    assert_eq!(json(host.ask(&get("/v1/stats")))["failed"], Value::Array(vec![]));
}
