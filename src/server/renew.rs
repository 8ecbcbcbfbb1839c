//! Certificates that are renewed before they end, while the server runs: its own, those of its
//! scheduler, controllers and signer, and the administrator's. Each lives in memory, or in the
//! kubeconfig, so nobody has to restart; connections that are there go on.
//!
//! Upstream's kubelet renews its own after 70 to 90 % of their time (`nextRotationDeadline` in
//! client-go `util/certificate/certificate_manager.go`); kubeadm renews with each upgrade.

use super::clients::Who;
use crate::pki::Pki;
use kubesim_backends::http::Tls;
use kubesim_backends::http::client::Credentials;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use tokio::time::sleep;
use x509_cert::der::DateTime;

const DAY: Duration = Duration::from_secs(86_400);
/// So long before the authority's end people are told, once a day: all who trust it need another.
const NOTICE: Duration = Duration::from_secs(180 * 86_400);
/// The clock is looked at so often: a timer stands still while the machine is suspended.
const LOOK: Duration = Duration::from_secs(60);

/// What is renewed, and by whom.
pub struct Renewal {
    pub pki: Rc<Pki>,
    pub tls: Tls,
    pub clients: Vec<(Who, Credentials)>,
    pub kubeconfig: PathBuf,
}

impl Renewal {
    /// For as long as it is polled. `url` is where the administrator finds the server.
    pub async fn run(self, url: String) {
        tokio::join!(self.renews(&url), self.warns());
    }

    async fn renews(&self, url: &str) {
        let mut due = now() + self.period();
        loop {
            until(due).await;
            let wait = match self.renew(url) {
                Ok(()) => self.period(),
                Err(why) => {
                    eprintln!("certificates: renewing them: {why}");
                    self.period() / 10
                }
            };
            due = now() + wait;
        }
    }

    /// Two thirds of how long one made now would last.
    fn period(&self) -> Duration {
        (self.pki.lasts(now()) * 2 / 3).max(Duration::from_secs(1))
    }

    fn renew(&self, url: &str) -> Result<(), String> {
        let (certificate, key) = self.pki.server()?;
        self.tls.renew(certificate.as_bytes(), key.as_bytes())?;
        for (who, credentials) in &self.clients {
            who.renew(&self.pki, credentials)?;
        }
        self.pki.admin(&self.kubeconfig, url)
    }

    async fn warns(&self) {
        let end = self.pki.signs.end();
        loop {
            until(end.saturating_sub(NOTICE)).await;
            let date = DateTime::from_unix_duration(end).map(|date| date.to_string());
            let date = date.unwrap_or_default();
            eprintln!(
                "certificates: the cluster's authority ends at {date}, and all that it signed with \
                 it: have clients trust another one before"
            );
            until(now() + DAY).await;
        }
    }
}

/// Since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Until that time, since 1970.
pub async fn until(due: Duration) {
    while let Some(left) = due.checked_sub(now()).filter(|left| !left.is_zero()) {
        sleep(left.min(LOOK)).await;
    }
}
