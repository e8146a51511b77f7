//! Plays the shared scenarios (`../matrix/scenarios.json`) with the crate `rust_socketio`.
//!
//! What the steps mean is said in `../matrix/README.md`. Run it with FLOTILLA_NODES naming a cluster's nodes.json.

mod client;
mod play;

use std::path::Path;
use std::time::Instant;

use rust_socketio::TransportType;
use serde_json::Value;

use play::Play;

/// What of a scenario's needs this crate has. It knows no id of its own socket, puts one binary value behind an event and
/// nowhere else, cannot answer what the server asks, draws ids of acks at random from 999, and does not tell why it
/// was disconnected.
const ABILITIES: [&str; 2] = ["auth", "wide numbers"];

/// The crate takes binary events over WebSocket only: by polling it reads no attachment.
const WEBSOCKET_ABILITIES: [&str; 1] = ["binary event"];

const LACKS: [&str; 12] = [
    "id",
    "multiplexing",
    "transport",
    "binary anywhere",
    "answers",
    "silence",
    "concurrent acks",
    "loss",
    "reconnection",
    "cut",
    "farewell",
    "recovery",
];

const MODES: [(&str, TransportType); 3] = [
    ("polling only", TransportType::Polling),
    ("websocket only", TransportType::Websocket),
    ("upgrade", TransportType::WebsocketUpgrade),
];

fn main() {
    let scenarios = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../matrix/scenarios.json"));
    let scenarios = scenarios.as_array().expect("the scenarios are a list");
    let named =
        std::env::var("FLOTILLA_NODES").expect("FLOTILLA_NODES names a cluster's nodes.json");
    let nodes = read(Path::new(&named));
    let nodes = nodes.as_array().expect("the nodes are a list");
    let urls: Vec<_> = (0..3).map(|index| text(&nodes[index % nodes.len()]["url"])).collect();

    println!("rust_socketio {}", version());
    let (mut passed, mut failed) = (0, 0);
    for (mode, transport) in MODES {
        for scenario in played(scenarios, mode) {
            let started = Instant::now();
            match Play::new(transport.clone(), &urls).play(scenario) {
                Ok(()) => {
                    passed += 1;
                    let took = started.elapsed().as_millis();
                    println!("  ✔ {} ({took}ms)", text(&scenario["name"]));
                }
                Err(error) => {
                    failed += 1;
                    println!("  ✖ {}: {error}", text(&scenario["name"]));
                }
            }
        }
    }
    println!("ℹ tests {}\nℹ pass {passed}\nℹ fail {failed}", passed + failed);
    // Threads of clients whose server is gone do not end by themselves.
    std::process::exit(i32::from(failed > 0));
}

/// The scenarios for this crate; says which ones are not for it.
fn played<'a>(scenarios: &'a [Value], mode: &str) -> Vec<&'a Value> {
    let mut abilities = ABILITIES.to_vec();
    if mode != "polling only" {
        abilities.extend(WEBSOCKET_ABILITIES);
    }
    let lacks = |scenario: &Value| -> Vec<String> {
        let needs = scenario["needs"].as_array().into_iter().flatten().map(text);
        needs.filter(|need| !abilities.contains(&need.as_str())).collect()
    };
    let played: Vec<_> = scenarios.iter().filter(|scenario| lacks(scenario).is_empty()).collect();
    println!("rust_socketio, {mode} plays {} of {} scenarios", played.len(), scenarios.len());
    for scenario in scenarios {
        let lacking = lacks(scenario);
        for need in &lacking {
            let is_known =
                LACKS.contains(&need.as_str()) || WEBSOCKET_ABILITIES.contains(&need.as_str());
            assert!(is_known, "no such need: {need}");
        }
        if !lacking.is_empty() {
            println!("  not for it, lacking {}: {}", lacking.join(","), text(&scenario["name"]));
        }
    }
    played
}

fn read(path: &Path) -> Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// As locked: the crate does not say its version itself.
fn version() -> &'static str {
    let locked =
        include_str!("../Cargo.lock").split("name = \"rust_socketio\"\nversion = \"").nth(1);
    locked.and_then(|rest| rest.split('"').next()).expect("the crate is locked")
}
