//! Bodies with values of the wrong kind.

use moirai_config::kinds::wrong_kinds;
use serde_json::json;

use crate::{Change, Exports, Launch};

#[test]
fn bodies_of_the_api_are_held_against_their_own_keys() {
    let found = wrong_kinds::<Launch>(&json!({"tenant": [{"name": 1}]}));
    assert_eq!(found.first().map(|it| it.path.as_str()), Some("tenant[0].name"));
    let found = wrong_kinds::<Exports>(&json!({"export": [{"net": {"queues": 70_000}}]}));
    assert_eq!(found.first().map(|it| it.path.as_str()), Some("export[0].net.queues"));
    let found = wrong_kinds::<Change>(&json!({"net": {"up": {"period": true}}}));
    assert_eq!(found.first().map(|it| it.path.as_str()), Some("net.up.period"));
    assert_eq!(wrong_kinds::<Change>(&json!([])).len(), 1);
}
