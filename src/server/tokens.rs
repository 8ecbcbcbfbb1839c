//! The keys of service accounts' tokens, as their file has them: who puts another key there need
//! not start the server anew. Of several servers each looks for itself, so a key that is to sign is
//! put behind the present one first, and before it when all have had time to look.

use kubesim_backends::http::Front;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::sleep;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);

pub struct Tokens {
    /// Of its keys.
    pub file: PathBuf,
    /// What it said the last time, good or not.
    pub said: String,
    /// Where others find the keys to check tokens by.
    pub url: String,
}

impl Tokens {
    /// For as long as it is polled. What makes no sense changes nothing and is said once: it may be
    /// half written.
    pub async fn follow(mut self, front: Front) {
        loop {
            sleep(LOOK).await;
            let said = match fs::read_to_string(&self.file) {
                Ok(said) if said != self.said => said,
                // Without it, what it said last is good.
                _ => continue,
            };
            if let Err(why) = front.issue_tokens(said.as_bytes(), &self.url) {
                let file = self.file.display();
                eprintln!("tokens: {file} has changed, and the former keys stay: {why}");
            }
            self.said = said;
        }
    }
}
