//! A server as systemd runs it: its flags in a file, and what it says by `NOTIFY_SOCKET`
//! (sd_notify(3)), where the test listens in systemd's place.

use crate::world::{Place, Server, clients};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

const LIMIT_MICROS: &str = "400000";
const SOON: Duration = Duration::from_secs(60);

/// What the service manager hears.
struct Manager(UnixDatagram);

impl Manager {
    fn hears(&self) -> String {
        let mut message = [0; 4096];
        let size = self.0.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..size]).into_owned()
    }

    /// All that is said until this line is among it.
    fn until(&self, line: &str) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let message = self.hears();
            let found = message.lines().any(|one| one == line);
            said.push(message);
            if found {
                return said;
            }
        }
    }
}

fn started(place: &Place, config: &str) -> Command {
    let file = place.0.join("config.toml");
    fs::write(&file, config).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubesim"));
    command.arg("server").arg("--config").arg(file);
    command
}

#[test]
fn a_service_manager_hears_of_the_start_the_beat_and_the_end() {
    let Some(client) = clients().into_iter().next() else { return };
    let place = Place::new();
    let socket = place.0.join("notify");
    let manager = Manager(UnixDatagram::bind(&socket).expect("a socket"));
    manager.0.set_read_timeout(Some(SOON)).expect("a patience");
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\ndata-dir = \"{}\"\nwithout = [\"controllers\"]\n\
         disable-admission-plugins = \"ServiceAccount\"\n",
        place.0.join("data").display()
    );
    let process = started(&place, &config)
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", LIMIT_MICROS)
        .stdout(Stdio::null())
        .spawn()
        .expect("the server starts");
    let start = manager.until("READY=1");
    assert!(start.iter().all(|said| !said.contains("WATCHDOG=1")), "{start:?}");
    let said = start.last().map(String::as_str).unwrap_or_default();
    let status = said.lines().find_map(|line| line.strip_prefix("STATUS=the API is at "));
    let url = status.expect("where it is").to_owned();
    let server = Server::of(process, &place, url, &client);
    assert_eq!(server.kubectl("get --raw /readyz"), "ok");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    server.signal(Signal::SIGTERM);
    manager.until("STOPPING=1");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn what_is_wrong_with_the_file_is_said_with_its_place() {
    let place = Place::new();
    let out = started(&place, "[server]\nstor = \"memory\"\n").output().expect("it runs");
    let error = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{error}");
    for part in ["unknown key `stor` in [server]", "config.toml:2:1", "did you mean `store`?"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
