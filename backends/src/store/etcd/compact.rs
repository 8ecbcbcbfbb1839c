//! Compaction, and what others have compacted.

use super::connect::Failure;
use super::{Inner, of_etcd, to_etcd};
use etcd_client::{Error, WatchOptions};
use kubesim_actors::ports::store::Reply;

impl Inner {
    pub async fn compact(&self, revision: u64) -> Reply {
        match self.compact_up_to(revision).await {
            Ok(revision) => Reply::Compacted { revision },
            Err(Failure::Refused(why)) => Reply::Refused { id: 0, why },
            Err(_) => Reply::Unknown { id: 0 },
        }
    }

    /// etcd refuses a future revision and one that is compacted already; neither is an error here.
    async fn compact_up_to(&self, revision: u64) -> Result<u64, Failure> {
        let mut revision = revision;
        // Compacting twice does no harm, so it may be asked again.
        let within = self.deadline;
        for _ in 0..2 {
            if revision <= 1 {
                break;
            }
            let asked = self.connections.until(within, async |client| {
                client.kv_client().compact(to_etcd(revision), None).await
            });
            match asked.await {
                Ok(_) => self.compacted.set(self.compacted.get().max(revision)),
                Err(Failure::Revision { compacted: true }) => {}
                Err(Failure::Revision { compacted: false }) => {
                    revision = self.revision().await?;
                    continue;
                }
                Err(failure) => return Err(failure),
            }
            break;
        }
        self.find_compacted().await
    }

    /// The newest compaction, whoever asked for it: etcd tells it only to a watch that comes too
    /// late.
    pub async fn find_compacted(&self) -> Result<u64, Failure> {
        let known = self.compacted.get();
        match self.probe(known.max(1)).await {
            Ok(_) => return Ok(known),
            Err(Failure::Revision { compacted: true }) => {}
            // An etcd that was made anew, or restored.
            Err(Failure::Revision { compacted: false }) => {
                self.compacted.set(0);
                return Ok(0);
            }
            Err(failure) => return Err(failure),
        }
        let nothing = format!("{}/", self.root);
        let found = self
            .connections
            .until(self.deadline, async |client| {
                let options = WatchOptions::new().with_start_revision(1);
                let mut stream = client.watch_client().watch(&*nothing, Some(options)).await?;
                while let Some(told) = stream.message().await? {
                    if told.compact_revision() > 0 {
                        return Ok(of_etcd(told.compact_revision()));
                    }
                }
                Err(Error::WatchError("the stream ended".to_owned()))
            })
            .await?;
        self.compacted.set(self.compacted.get().max(found));
        Ok(found)
    }
}
