//! What an informer's subscriber has not taken yet: of views that wait, the newest.

use kubesim_actors::ports::api::News;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::sync::Notify;

#[derive(Default)]
pub struct Inbox {
    waiting: RefCell<VecDeque<News>>,
    rung: Notify,
}

impl Inbox {
    pub fn new() -> Rc<Inbox> {
        Rc::default()
    }

    pub fn put(&self, news: News) {
        let mut waiting = self.waiting.borrow_mut();
        let replaced = matches!(
            (waiting.back(), &news),
            (Some(News::View { .. }), News::View { .. })
                | (Some(News::Closed { .. }), News::Closed { .. })
        );
        if replaced {
            waiting.pop_back();
        }
        // Closed, a view, closed, a view: the first two say nothing that the others do not.
        if waiting.len() > 2 {
            waiting.drain(..2);
        }
        waiting.push_back(news);
        self.rung.notify_one();
    }

    pub async fn next(&self) -> News {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                Some(news) => return news,
                None => self.rung.notified().await,
            }
        }
    }
}
