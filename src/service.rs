//! What systemd is told of a server or node that it runs as a service of `Type=notify`
//! (sd_notify(3)): how far it is, when it is ready, and that its loop turns. Nobody asks for it
//! where `NOTIFY_SOCKET` is not set, and nothing is said then.

use crate::status::Board;
use sd_notify::NotifyState;
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

/// A service, from its start on. Its beat ends with it.
pub struct Service {
    ready: Rc<Cell<bool>>,
    beat: Option<JoinHandle<()>>,
}

impl Service {
    /// One whose actors are on this board. Within a `LocalSet`, which must be the actors' own: the
    /// beat is a task of that loop and no thread, so that a loop that hangs is found out.
    pub fn begin(board: Board) -> Service {
        let ready = Rc::new(Cell::new(false));
        let beat = sd_notify::watchdog_enabled().map(|limit| {
            let ready = Rc::clone(&ready);
            let alive = move || {
                let board = board.clone();
                async move { board.turns().await }
            };
            spawn_local(beat(limit, ready, alive, |state| tell(&[state])))
        });
        Service { ready, beat }
    }

    /// How far it is, for `systemctl status`.
    #[cfg(feature = "node")]
    pub fn status(&self, text: &str) {
        tell(&[NotifyState::Status(text)]);
    }

    /// It does what it is there for. Whatever waited for it is started.
    pub fn ready(&self, text: &str) {
        self.ready.set(true);
        tell(&[NotifyState::Ready, NotifyState::Status(text)]);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.beat.iter().for_each(JoinHandle::abort);
    }
}

/// It ends, as it was told to.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ends what was begun")]);
}

/// Who cannot be told is nobody to wait for: systemd takes a service for hung that says nothing.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        eprintln!("service: telling systemd: {error}");
    }
}

/// Twice within the time that the service manager gives, as sd_watchdog_enabled(3) asks for, while
/// all that should live does. A start takes as long as it takes, so before it is over what is given
/// more time is the start (`EXTEND_TIMEOUT_USEC`): a loop that hangs is noticed there as well.
async fn beat<F: Future<Output = bool>>(
    limit: Duration,
    ready: Rc<Cell<bool>>,
    alive: impl Fn() -> F,
    tell: impl Fn(NotifyState<'_>),
) {
    let more = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    loop {
        match alive().await {
            true if ready.get() => tell(NotifyState::Watchdog),
            true => tell(NotifyState::ExtendTimeoutUsec(more)),
            false => eprintln!("service: an actor does not answer; systemd is told nothing"),
        }
        sleep(limit / 2).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::time::Instant;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_millis(20);

    /// What is said, and when.
    type Said = Rc<RefCell<Vec<(String, Instant)>>>;

    /// Beats while something else happens.
    async fn beats<F: Future<Output = bool>>(
        ready: &Rc<Cell<bool>>,
        alive: impl Fn() -> F,
        meanwhile: impl Future<Output = ()>,
    ) -> Vec<(String, Instant)> {
        let said = Said::default();
        let heard = Rc::clone(&said);
        let tell = move |state: NotifyState<'_>| {
            heard.borrow_mut().push((state.to_string(), Instant::now()));
        };
        tokio::select! {
            () = beat(LIMIT, Rc::clone(ready), alive, tell) => {}
            () = meanwhile => {}
        }
        said.take()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), future)
    }

    #[test]
    fn a_start_is_given_time_and_then_the_heart_beats() {
        let ready = Rc::new(Cell::new(false));
        let said = run(beats(&ready, async || true, async {
            sleep(LIMIT * 2).await;
            ready.set(true);
            sleep(LIMIT * 5).await;
        }));
        let said: Vec<&str> = said.iter().map(|(text, _)| text.trim()).collect();
        assert_eq!(said.first(), Some(&"EXTEND_TIMEOUT_USEC=20000"), "{said:?}");
        assert_eq!(said.last(), Some(&"WATCHDOG=1"), "{said:?}");
    }

    /// As a step of an actor would that does not come back.
    #[test]
    fn a_loop_that_hangs_does_not_beat() {
        const HANGS: Duration = Duration::from_millis(200);
        let (ready, hung) = (Rc::new(Cell::new(true)), Cell::new(None));
        let said = run(beats(&ready, async || true, async {
            sleep(LIMIT * 2).await;
            let from = Instant::now();
            std::thread::sleep(HANGS);
            hung.set(Some((from, Instant::now())));
            sleep(LIMIT * 5).await;
        }));
        let (from, to) = hung.get().expect("it hung");
        let within = said.iter().filter(|(_, at)| *at > from && *at < to).count();
        assert_eq!(within, 0, "{said:?}");
        assert!(said.iter().any(|(_, at)| *at < from) && said.iter().any(|(_, at)| *at > to));
    }

    #[test]
    fn who_does_not_answer_has_no_heart() {
        let ready = Rc::new(Cell::new(true));
        let silent = async || timeout(LIMIT, std::future::pending::<()>()).await.is_ok();
        let said = run(beats(&ready, silent, async { sleep(LIMIT * 5).await }));
        assert!(said.is_empty(), "{said:?}");
    }
}
