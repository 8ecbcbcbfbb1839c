//! What a joined cluster has, for who judges the world: the lab's own server says what it
//! publishes, and of another one its clients are told.

use crate::lab::mail::{Mail, News};
use kubesim_actors::apiserver::Cache;
use kubesim_actors::objects::{Kind, View};
use kubesim_actors::ports::api::{self, Effect, Event, Scope};
use kubesim_backends::http::client::Client;
use kubesim_backends::port::{Answer, Port};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::task::spawn_local;

/// Informers of every kind, for as long as the machine is on. Views of kinds are not of one
/// instant, which an observer of the API cannot tell; until each has come, there is nothing to be
/// told.
pub fn keep(client: &Client, mail: &Mail) {
    let views: Rc<RefCell<BTreeMap<Kind, View>>> = Rc::default();
    for &kind in Kind::ALL {
        let (views, mail) = (Rc::clone(&views), mail.clone());
        let answer = Answer::new(move |event| {
            if let Event::News(api::News::View { kind, view, .. }) = event {
                views.borrow_mut().insert(kind, view);
                if views.borrow().len() == Kind::ALL.len() {
                    mail.send(News::Published(cache(&views.borrow())));
                }
            }
            async { Ok(()) }
        });
        spawn_local(client.perform(Effect::Watch { kind, scope: Scope::All }, answer));
    }
}

fn cache(views: &BTreeMap<Kind, View>) -> Cache {
    let revision = views.values().map(View::version).max().unwrap_or_default();
    // Nobody watches this copy.
    let compacted = revision;
    Cache { views: views.clone(), definitions: Default::default(), revision, compacted, last: None }
}
