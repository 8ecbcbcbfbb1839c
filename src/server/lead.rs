//! Work that one of several servers does: the one that holds the lease.

use super::clients::{Running, settings};
use kubesim_actors::elector::{Config, Effect, Elector, Event};
use kubesim_actors::objects::Key;
use kubesim_backends::http::client::Client;
use kubesim_backends::port::{Answer, Closed, Port};
use kubesim_runtime::Ticket;
use kubesim_runtime::host::{self, AnswerTo, Driver, SystemClock};
use std::fs;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// How long giving up a lease may take: it runs out by itself.
const RELEASE: Duration = Duration::from_secs(2);

/// How one of several is found, as upstream's flags `--leader-elect-…` say.
#[derive(Clone, Debug)]
pub struct Election {
    pub duration: Duration,
    pub deadline: Duration,
    pub retry: Duration,
    /// Of this process.
    pub identity: String,
}

impl Election {
    /// Of the lease of this name.
    pub fn config(&self, lease: &str) -> Config {
        Config {
            lease: Key::new("kube-system", lease),
            identity: self.identity.as_str().into(),
            duration: self.duration,
            deadline: self.deadline,
            retry: self.retry,
        }
    }

    /// What client-go's `NewLeaderElector` asks of them.
    pub fn check(&self) -> Result<(), String> {
        if self.duration <= self.deadline {
            Err("--leader-elect-lease-duration must be longer than the renew deadline".to_owned())
        } else if self.deadline <= self.retry * 12 / 10 {
            Err("--leader-elect-renew-deadline must be longer than 1.2 retry periods".to_owned())
        } else {
            Ok(())
        }
    }
}

/// The machine's name and what no other process has, as upstream's.
pub fn identity(unique: u64) -> String {
    format!("{}_{unique:016x}", hostname())
}

/// The machine's name, as far as it is one.
pub fn hostname() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let named = |c: &char| c.is_ascii_alphanumeric() || "-.".contains(*c);
    host.chars().filter(named).collect()
}

/// `work` is begun whenever this one leads, and ended when it does not.
pub fn while_elected(
    config: Config,
    client: Client,
    work: impl Fn() -> Running + 'static,
) -> Running {
    let (send, leads) = watch::channel(false);
    let (over, mut is_over) = watch::channel(false);
    let driver = Ballot { client: client.clone(), leads: Rc::new(send), over: Rc::new(over) };
    let clock = SystemClock::new();
    let elector = host::spawn::<Elector>(config, driver, clock, settings::<Elector>());
    let (end, ended) = oneshot::channel::<()>();
    let works = spawn_local(turns(leads, ended, work));
    let keeps = spawn_local(client.run());
    let stop = async move {
        let _ = end.send(());
        let _ = works.await;
        // Nothing is done by the lease any more: another one may have it.
        if elector.send(Event::End).await.is_ok() {
            let _ = timeout(RELEASE, is_over.wait_for(|over| *over)).await;
        }
        elector.stop().await;
    };
    Running::new(stop, vec![keeps])
}

async fn turns(
    mut leads: watch::Receiver<bool>,
    mut ended: oneshot::Receiver<()>,
    work: impl Fn() -> Running,
) {
    let mut running: Option<Running> = None;
    loop {
        let leading = *leads.borrow_and_update();
        match running.take() {
            None if leading => running = Some(work()),
            Some(one) if !leading => one.stop().await,
            as_it_is => running = as_it_is,
        }
        tokio::select! {
            changed = leads.changed() => if changed.is_err() { break },
            _ = &mut ended => break,
        }
    }
    if let Some(one) = running {
        one.stop().await;
    }
}

/// Carries out what the elector asks for, and tells who leads.
struct Ballot {
    client: Client,
    leads: Rc<watch::Sender<bool>>,
    /// Nothing more is done.
    over: Rc<watch::Sender<bool>>,
}

impl Driver<Elector> for Ballot {
    fn perform(
        &self,
        _: Ticket,
        effect: Effect,
        answer: AnswerTo<Elector>,
    ) -> impl Future<Output = ()> + 'static {
        let asked = match effect {
            Effect::Api(effect) => {
                let answer = Rc::new(answer);
                let answer = Answer::new(move |reply| {
                    let answer = Rc::clone(&answer);
                    async move { answer.send(Event::Api(reply)).await.map_err(|_| Closed) }
                });
                Some(self.client.perform(effect, answer))
            }
            Effect::Lead | Effect::Yield => {
                self.leads.send_replace(matches!(effect, Effect::Lead));
                None
            }
            Effect::Ended => {
                self.over.send_replace(true);
                None
            }
        };
        async move {
            if let Some(asked) = asked {
                asked.await;
            }
        }
    }
}
