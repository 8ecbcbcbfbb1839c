//! The probe port: the kubelet's probes of containers and hooks of their lives, from the machine's
//! own network. Its model is in `sim/src/world/containers.rs`.

mod http;

pub use self::http::status_of;

use crate::port::{Answer, Local, Port};
use kubesim_actors::objects::Uid;
use kubesim_actors::ports::probe::{Check, Purpose, Reply, Request};
use smol_str::{SmolStr, format_smolstr};
use std::io;
use std::net::SocketAddrV4;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A command in a container.
#[derive(Clone, Debug)]
pub struct Command {
    pub pod: Uid,
    pub container: SmolStr,
    pub words: Vec<String>,
    /// How long it may take, if not as long as it takes.
    pub within: Option<Duration>,
    pub purpose: Purpose,
}

/// Why a command came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// With another code than 0.
    Ended { code: i32, stdout: String, stderr: String },
    /// It did not run, or did not end.
    Not(SmolStr),
}

impl Failed {
    /// As a probe's failure is told: by what it printed.
    fn of_probe(self) -> SmolStr {
        match self {
            Failed::Ended { code, stdout, stderr } => match [stdout, stderr].concat().trim() {
                "" => format_smolstr!("command exited with {code}"),
                said => SmolStr::from(said),
            },
            Failed::Not(why) => why,
        }
    }

    /// As a hook's is (`ExecSync` in staging/src/k8s.io/cri-client/pkg/remote_runtime.go, and
    /// pkg/kubelet/lifecycle/handlers.go).
    fn of_hook(self, words: &[String]) -> SmolStr {
        match self {
            Failed::Ended { code, stdout, stderr } => {
                let (command, said) = (words.join(" "), [&*stdout, &*stderr].concat());
                format_smolstr!(
                    "command '{command}' exited with {code}: {stderr}, message: {said:?}"
                )
            }
            Failed::Not(why) => format_smolstr!("{why}, message: \"\""),
        }
    }
}

/// What a command comes to.
type Exec = dyn Fn(Command) -> Local<Result<(), Failed>>;

/// What the kubelet calls itself over HTTP (`userAgent` in pkg/probe/http/request.go).
const PROBES: &str = "kube-probe/1.33";
const HOOKS: &str = "kube-lifecycle/1.33";

/// The driver.
#[derive(Clone)]
pub struct Probes {
    exec: Rc<Exec>,
}

impl Probes {
    /// `exec` runs a command in a container.
    pub fn new(exec: impl Fn(Command) -> Local<Result<(), Failed>> + 'static) -> Probes {
        Probes { exec: Rc::new(exec) }
    }
}

impl Port for Probes {
    type Request = Request;
    type Reply = Reply;

    fn perform(&self, request: Request, answer: Answer<Reply>) -> Local<()> {
        let exec = Rc::clone(&self.exec);
        Box::pin(async move {
            let Request { pod, container, purpose, check, timeout: within } = request;
            let hook = purpose.is_hook();
            let checked = async {
                match &check {
                    Check::Tcp { ip, port } => {
                        let to = SocketAddrV4::new(*ip, *port);
                        dial(&to.to_string()).await.map(|_| ())
                    }
                    Check::Http { ip, get } => {
                        let agent = if hook { HOOKS } else { PROBES };
                        let status = http::ask(*ip, get, agent).await?;
                        // 200..400 is success (pkg/probe/http/http.go).
                        if hook || (200..400).contains(&status) {
                            return Ok(());
                        }
                        Err(format_smolstr!("HTTP probe failed with statuscode: {status}"))
                    }
                    Check::Exec { command } => {
                        let (container, words) = (container.clone(), command.clone());
                        let done = exec(Command { pod, container, words, within, purpose }).await;
                        done.map_err(|failed| match hook {
                            true => failed.of_hook(command),
                            false => failed.of_probe(),
                        })
                    }
                }
            };
            // What is too long for a clock is for ever.
            let within = within.unwrap_or(Duration::MAX);
            let result = timeout(within, checked).await.unwrap_or_else(|_| {
                let why =
                    "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                Err(SmolStr::new_static(why))
            });
            let _ = answer.send(Reply { pod, container, purpose, result }).await;
        })
    }
}

/// As the kubelet words it: `dial tcp 10.244.1.2:80: connect: connection refused`.
async fn dial(to: &str) -> Result<TcpStream, SmolStr> {
    TcpStream::connect(to).await.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
            io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
            _ => error.to_string(),
        };
        format_smolstr!("dial tcp {to}: connect: {why}")
    })
}
