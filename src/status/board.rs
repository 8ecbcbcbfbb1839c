//! The actors of a process, for who asks how they are: each answers between two of its steps.

use super::report::{Report, Shown};
use crate::socket::{Door, allowed};
use kubesim_backends::port::Local;
use kubesim_runtime::host::Hosted;
use kubesim_runtime::{Actor, Look};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

pub const NAME: &str = "status.sock";
/// Who does not read for so long is left, and an actor that does not answer is not there.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// `None` from one that is gone.
type Looker = Box<dyn Fn() -> Local<Option<Look>>>;

/// Clones are the same one.
#[derive(Clone, Default)]
pub struct Board(Rc<RefCell<Vec<(u64, Looker)>>>);

impl Board {
    /// An actor, for as long as somebody else holds it.
    pub fn add<A: Actor>(&self, hosted: &Rc<Hosted<A>>) {
        let hosted = Rc::downgrade(hosted);
        let look: Looker = Box::new(move || {
            let hosted = hosted.upgrade();
            Box::pin(async move { hosted?.look().await })
        });
        let mut all = self.0.borrow_mut();
        let number = all.last().map_or(0, |(number, _)| number + 1);
        all.push((number, look));
    }

    /// Whether each that is there answers: its host takes messages one by one, between two steps.
    pub async fn turns(&self) -> bool {
        let asked: Vec<_> = self.0.borrow().iter().map(|(_, look)| look()).collect();
        for look in asked {
            if timeout(PATIENCE, look).await.is_err() {
                return false;
            }
        }
        true
    }

    /// All that are there. Those that went are forgotten.
    async fn look(&self) -> Vec<Look> {
        let asked: Vec<_> = {
            let all = self.0.borrow();
            all.iter().map(|(number, look)| (*number, look())).collect()
        };
        let mut found = Vec::new();
        for (number, look) in asked {
            match timeout(PATIENCE, look).await {
                Ok(Some(look)) => found.push(look),
                Ok(None) => self.0.borrow_mut().retain(|(known, _)| *known != number),
                Err(_) => {}
            }
        }
        found
    }

    /// Answers at a socket in this directory, for as long as it is polled.
    pub async fn serve(self, directory: PathBuf) {
        let door = match Door::open(&directory, NAME) {
            Ok(door) => door,
            Err(error) => {
                eprintln!("status: listening at {NAME} in {}: {error}", directory.display());
                return;
            }
        };
        loop {
            let Ok((stream, _)) = door.listener.accept().await else {
                sleep(PAUSE).await;
                continue;
            };
            if let Err(error) = self.answer(stream).await {
                eprintln!("status: answering: {error}");
            }
        }
    }

    async fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        allowed(stream.peer_cred()?.uid())?;
        let actors = self.look().await.iter().map(Shown::of).collect();
        let report = Report { process: std::process::id(), actors };
        let text = serde_json::to_vec(&report)?;
        let sent = async {
            stream.write_all(&text).await?;
            stream.shutdown().await
        };
        timeout(PATIENCE, sent).await?
    }
}
