//! One transaction: all comparisons hold, or the keys' revisions come back.

use super::connect::Failure;
use super::{Inner, of_etcd, to_etcd};
use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use kubesim_actors::ports::store::{self, Op, Reply, StoreKey};
use tokio::time::Instant;

impl Inner {
    pub async fn txn(&self, id: u64, compare: Vec<(StoreKey, u64)>, then: Vec<Op>) -> Reply {
        if let Some(why) = store::refusal(&compare, &then) {
            return Reply::Refused { id, why };
        }
        let txn = self.to_txn(&compare, then);
        let deadline = Instant::now() + self.deadline;
        let asked =
            self.connections.once(deadline, async |client| client.kv_client().txn(txn).await);
        match asked.await {
            Ok(response) => of_response(id, compare, &response),
            Err(Failure::Refused(why)) => Reply::Refused { id, why },
            Err(Failure::Unknown | Failure::Revision { .. }) => Reply::Unknown { id },
        }
    }

    fn to_txn(&self, compare: &[(StoreKey, u64)], then: Vec<Op>) -> Txn {
        let when = compare.iter().map(|(key, revision)| {
            Compare::mod_revision(self.path(key), CompareOp::Equal, to_etcd(*revision))
        });
        let then = then.into_iter().map(|op| match op {
            Op::Put { key, value } => TxnOp::put(self.path(&key), value.to_bytes(), None),
            Op::Delete { key } => TxnOp::delete(self.path(&key), None),
        });
        let keys_only = || Some(GetOptions::new().with_keys_only());
        let otherwise = compare.iter().map(|(key, _)| TxnOp::get(self.path(key), keys_only()));
        Txn::new()
            .when(when.collect::<Vec<_>>())
            .and_then(then.collect::<Vec<_>>())
            .or_else(otherwise.collect::<Vec<_>>())
    }
}

fn of_response(id: u64, compare: Vec<(StoreKey, u64)>, response: &TxnResponse) -> Reply {
    let Some(header) = response.header() else { return Reply::Unknown { id } };
    if response.succeeded() {
        return Reply::Committed { id, revision: of_etcd(header.revision()) };
    }
    let found = response.op_responses().into_iter().map(|response| match response {
        TxnOpResponse::Get(got) => {
            got.kvs().first().map_or(0, |found| of_etcd(found.mod_revision()))
        }
        _ => 0,
    });
    let mut found = compare.into_iter().zip(found);
    match found.find(|((_, expected), found)| expected != found) {
        Some(((key, _), found)) => Reply::Mismatch { id, key, found },
        // etcd says that one differs and shows none that does.
        None => Reply::Unknown { id },
    }
}
