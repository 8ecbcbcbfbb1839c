//! A watch that outlives its connection: it goes on where it was told last.

use super::connect::{Failure, of_error};
use super::range::LARGEST;
use super::{Inner, end_of, of_etcd, to_etcd};
use crate::port::{Answer, Closed};
use etcd_client::{Error, EventType, WatchOptions, WatchResponse};
use kubesim_actors::ports::store::{Change, Reply, Under};
use smol_str::{SmolStr, format_smolstr};
use tokio::time::timeout;

struct Watch<'a> {
    inner: &'a Inner,
    id: u64,
    under: Under,
    /// The next revision to tell.
    from: u64,
    /// All up to this one was told, or happened before the watch.
    told: u64,
    answer: Answer<Reply>,
}

enum End {
    /// Of the connection.
    Lost,
    /// Of the watch, with this as its last word.
    Over(Reply),
    Closed,
}

impl From<Closed> for End {
    fn from(Closed: Closed) -> End {
        End::Closed
    }
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        of_error(&error).into()
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        match failure {
            // The id is put in by who sends it.
            Failure::Refused(why) => End::Over(Reply::Refused { id: 0, why }),
            Failure::Unknown | Failure::Revision { .. } => End::Lost,
        }
    }
}

impl Inner {
    pub async fn watch(
        &self,
        id: u64,
        under: Under,
        from: u64,
        answer: Answer<Reply>,
    ) -> Result<(), Closed> {
        let mut watch = Watch { inner: self, id, under, from, told: 0, answer };
        let mut failures = 0;
        loop {
            let (number, before) = (self.connections.number(), watch.from);
            match watch.while_connected().await {
                End::Closed => return Err(Closed),
                End::Over(Reply::Refused { why, .. }) => {
                    return watch.answer.send(Reply::Refused { id, why }).await;
                }
                End::Over(last) => return watch.answer.send(last).await,
                End::Lost => {
                    self.connections.failed(number);
                    failures = if watch.from > before { 1 } else { failures + 1 };
                    self.connections.pause(failures).await;
                }
            }
        }
    }
}

impl Watch<'_> {
    async fn while_connected(&mut self) -> End {
        match self.tell().await {
            Ok(()) => End::Lost,
            Err(end) => end,
        }
    }

    /// Ends well when etcd ends the stream.
    async fn tell(&mut self) -> Result<(), End> {
        if self.from == 0 {
            // From now on, wherever the connection is lost after this.
            self.told = self.inner.revision().await?;
            self.from = self.told + 1;
        } else if self.told > 0 {
            self.goes_on().await?;
        }
        let prefix = self.inner.prefix(&self.under);
        // etcd 3.4 keeps no deletion that happened at the compacted revision, and lets a watch
        // begin there all the same. One that begins a revision earlier is told.
        let start = to_etcd(self.from - 1).max(1);
        let options = WatchOptions::new()
            .with_range(end_of(&prefix))
            .with_start_revision(start)
            .with_progress_notify();
        let opening = async {
            let (number, client) = self.inner.connections.client().await?;
            let mut client = client.watch_client().max_decoding_message_size(LARGEST);
            Ok::<_, Error>((number, client.watch(prefix, Some(options)).await?))
        };
        let opened = timeout(self.inner.deadline, opening).await.map_err(|_| End::Lost)?;
        let (number, mut stream) = opened?;
        loop {
            let told = tokio::select! {
                told = stream.message() => told?,
                () = self.inner.connections.given_up(number) => return Err(End::Lost),
            };
            let Some(told) = told else { return Ok(()) };
            self.pass_on(&told).await?;
        }
    }

    /// An etcd that was restored from a backup counts the same revisions again, for other changes
    /// (etcdutl's `--bump-revision` is against it); one that began anew, too.
    async fn goes_on(&self) -> Result<(), End> {
        let newest = self.inner.revision().await?;
        if newest < self.told {
            return Err(End::Over(Reply::Forgotten { id: self.id, compacted: newest }));
        }
        Ok(())
    }

    async fn pass_on(&mut self, told: &WatchResponse) -> Result<(), End> {
        let id = self.id;
        if told.compact_revision() > 0 {
            let compacted = of_etcd(told.compact_revision());
            self.inner.compacted.set(self.inner.compacted.get().max(compacted));
            return Err(End::Over(Reply::Forgotten { id, compacted }));
        }
        if told.canceled() {
            // No leader, mostly; etcd says "permission denied" here as well.
            let reason = told.cancel_reason();
            return Err(match reason.contains("permission") {
                true => {
                    let why = format_smolstr!("etcd ends the watch: {reason}");
                    End::Over(Reply::Refused { id, why })
                }
                false => End::Lost,
            });
        }
        // What is told at the beginning says where etcd is, and not that all before was told.
        if told.created() && told.events().is_empty() {
            return Ok(());
        }
        let changes = self.changes(told).map_err(|why| End::Over(Reply::Refused { id, why }))?;
        let last = told.events().last().and_then(|event| event.kv());
        let revision = match last {
            Some(last) => of_etcd(last.mod_revision()),
            None => told.header().map_or(0, |header| of_etcd(header.revision())),
        };
        if changes.is_empty() && last.is_some() && revision < self.from {
            // Told before, or older than what was asked for.
            return Ok(());
        }
        self.told = self.told.max(revision);
        self.from = self.from.max(revision + 1);
        Ok(self.answer.send(Reply::Watched { id, revision, changes }).await?)
    }

    fn changes(&self, told: &WatchResponse) -> Result<Vec<Change>, SmolStr> {
        let mut changes = Vec::with_capacity(told.events().len());
        for event in told.events() {
            let Some(kv) = event.kv() else { continue };
            let revision = of_etcd(kv.mod_revision());
            let value = (event.event_type() == EventType::Put).then(|| kv.value());
            let key = self.inner.key_of(kv.key(), value).filter(|_| revision >= self.from);
            let Some(key) = key else { continue };
            changes.push(match event.event_type() {
                EventType::Put => Change::Put(self.inner.object(&key, kv.value(), revision)?),
                EventType::Delete => Change::Deleted { key, revision },
            });
        }
        Ok(changes)
    }
}
