//! kube-dns and CoreDNS as they treat their upstreams: `forward . /etc/resolv.conf` reads the file
//! when the server starts and never again (coredns/coredns#6715, #3928; field note M).
//!
//! Everything else is our own DNS actor; only what it hears of the file differs: the first content
//! that names a server is what it read at its start (without one the server exits, "no nameservers
//! found", and is started again until there is one), and whatever the file says later does not
//! reach it before a restart.

use kubesim_actors::dns::{Config, Dns, Effect, Event, Timer, Upstreams};
use kubesim_actors::objects::Name;
use kubesim_actors::ports::files;
use kubesim_runtime::{Actor, Clocks, Context, Outbox, Ticket, TimerOp};

#[derive(Clone, Debug)]
pub struct KubeDns {
    dns: Dns,
    /// The upstreams' file, and whether it was read in this life.
    resolv_conf: Option<Name>,
    read: bool,
    next_ticket: u64,
    /// Our tickets run ahead of the inner ones by this much: every inner effect is one of ours.
    ahead: u64,
}

impl Actor for KubeDns {
    const NAME: &'static str = Dns::NAME;
    type Config = Config;
    type Event = Event;
    type Effect = Effect;
    type Timer = Timer;

    fn start(config: &Config, ctx: &mut Context<'_, Self>) -> Self {
        let resolv_conf = match &config.upstreams {
            Upstreams::File(path) => Some(path.clone()),
            Upstreams::Explicit(_) => None,
        };
        let mut out = Outbox::new(true);
        let mut next_ticket = 0;
        let mut inner = Context::new(clocks(ctx), ctx.rng(), &mut next_ticket, &mut out);
        let dns = Dns::start(config, &mut inner);
        let mut kube_dns = KubeDns { dns, resolv_conf, read: false, next_ticket, ahead: 0 };
        kube_dns.pass_on(out, ctx);
        kube_dns
    }

    fn handle(&mut self, event: Event, ctx: &mut Context<'_, Self>) {
        if let Event::Files(files::Reply::Content { path, content }) = &event
            && self.resolv_conf.as_ref() == Some(path)
        {
            if self.read || !content.as_deref().is_some_and(names_a_server) {
                return;
            }
            self.read = true;
        }
        self.step(ctx, |dns, inner| dns.handle(event, inner));
    }

    fn timeout(&mut self, timer: Timer, ctx: &mut Context<'_, Self>) {
        self.step(ctx, |dns, inner| dns.timeout(timer, inner));
    }
}

impl KubeDns {
    fn step(
        &mut self,
        ctx: &mut Context<'_, Self>,
        act: impl FnOnce(&mut Dns, &mut Context<'_, Dns>),
    ) {
        let mut out = Outbox::new(true);
        let mut inner = Context::new(clocks(ctx), ctx.rng(), &mut self.next_ticket, &mut out);
        act(&mut self.dns, &mut inner);
        self.pass_on(out, ctx);
    }

    fn pass_on(&mut self, out: Outbox<Dns>, ctx: &mut Context<'_, Self>) {
        let now = ctx.now();
        for (inner, effect) in out.effects {
            self.ahead = ctx.perform(effect).0 - inner.0;
        }
        for Ticket(inner) in out.cancelled {
            ctx.cancel(Ticket(inner + self.ahead));
        }
        for op in out.timers {
            match op {
                TimerOp::Set(timer, at) => ctx.set_timer(timer, at.since(now)),
                TimerOp::Clear(timer) => ctx.clear_timer(timer),
            }
        }
        for note in out.notes {
            ctx.note(|| note);
        }
        if let Some(cause) = out.failed {
            ctx.fail(cause);
        }
    }
}

fn names_a_server(resolv_conf: &str) -> bool {
    resolv_conf.lines().any(|line| line.trim_start().starts_with("nameserver"))
}

fn clocks(ctx: &Context<'_, KubeDns>) -> Clocks {
    Clocks { now: ctx.now(), boot: ctx.boot(), wall: ctx.wall() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubesim_runtime::{Rng, Stream};

    const RESOLV_CONF: &str = "/etc/resolv.conf";

    fn config() -> Config {
        Config {
            node: "n1".into(),
            listen: [10, 96, 0, 10].into(),
            cluster_domain: "cluster.local".to_owned(),
            service_network: "10.96.0.0/12".parse().unwrap(),
            pod_network: "10.244.0.0/16".parse().unwrap(),
            pod_records: false,
            upstreams: Upstreams::File(RESOLV_CONF.into()),
        }
    }

    #[test]
    fn the_first_server_named_is_kept_and_later_contents_do_not_arrive() {
        let mut rng = Rng::new(Stream { seed: 1, label: "dns", index: 0, incarnation: 0 });
        let mut ticket = 40;
        let mut out = Outbox::new(false);
        let mut ctx = Context::new(Clocks::default(), &mut rng, &mut ticket, &mut out);
        let mut dns = KubeDns::start(&config(), &mut ctx);
        let content = |text: &str| {
            let (path, content) = (RESOLV_CONF.into(), Some(text.into()));
            Event::Files(files::Reply::Content { path, content })
        };
        let unread = format!("{:?}", dns.dns);
        dns.handle(content("# not yet\n"), &mut ctx);
        assert_eq!(format!("{:?}", dns.dns), unread);
        dns.handle(content("nameserver 192.168.1.1\n"), &mut ctx);
        assert_ne!(format!("{:?}", dns.dns), unread);
        let before = format!("{:?}", dns.dns);
        dns.handle(content("nameserver 10.20.0.1\n"), &mut ctx);
        assert_eq!(format!("{:?}", dns.dns), before);
    }
}
