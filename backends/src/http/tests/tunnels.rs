//! What is asked of nodes, as far as it goes without any: who may be one's end of a tunnel, which
//! container is meant, and what is said of a node that is not there.

use super::world::{Answered, Ask, World, play};
use super::*;
use crate::http::auth::User;
use crate::http::nodes::{PROTOCOL, path};

const POD: &str = "/api/v1/namespaces/default/pods/p";

async fn dials(world: &World, name: &str, groups: &[&str], node: &str) -> Answered {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    let user = Some(User { name: name.to_owned(), groups, ..User::default() });
    let words = format!("GET {}", path(node));
    let headers = [("connection", "Upgrade"), ("upgrade", PROTOCOL)];
    world.ask(Ask { words: &words, user, headers: &headers, ..Ask::default() }).await
}

#[test]
fn a_node_serves_itself_and_nobody_else_does() {
    play(|world| async move {
        let nodes = &["system:nodes"][..];
        assert_eq!(dials(&world, "system:node:n1", nodes, "n1").await.code, 404, "none is asked");
        world.front.asks_nodes();
        assert_eq!(dials(&world, "system:node:n1", nodes, "n1").await.code, 101);
        for (name, groups, why) in [
            ("system:node:n2", nodes, "node 'n2' cannot serve 'n1', only itself"),
            ("system:node:n1", &[], "only a node serves itself"),
            ("admin", &["system:masters"], "only a node serves itself"),
        ] {
            let refused = dials(&world, name, groups, "n1").await;
            let said = refused.json()["message"].as_str().unwrap_or_default().to_owned();
            assert!(refused.code == 403 && said.ends_with(why), "{name}: {said}");
        }
        let words = format!("GET {}", path("n1"));
        let user = Some(User {
            name: "system:node:n1".to_owned(),
            groups: vec!["system:nodes".to_owned()],
            ..User::default()
        });
        let plain = world.ask(Ask { words: &words, user, ..Ask::default() }).await;
        assert_eq!(plain.refusal(), (400, "BadRequest".to_owned()));
    });
}

#[test]
fn what_a_node_cannot_be_asked_is_told_why() {
    play(|world| async move {
        let mut pod = super::pod("p");
        world.send("POST /api/v1/namespaces/default/pods", &pod).await.ok();
        let said = async |words: &str| {
            let answered = world.send(words, &json!({})).await;
            (answered.code, answered.json()["message"].as_str().unwrap_or_default().to_owned())
        };
        let (code, why) = said(&format!("GET {POD}/log")).await;
        assert!(code == 405 && why.starts_with("pods/log is asked of the pod's node"), "{why}");
        world.front.asks_nodes();
        assert_eq!(world.get(&format!("{POD}/log")).await.text, "", "nothing ran");
        let none = (400, "pod p does not have a host assigned".to_owned());
        assert_eq!(said(&format!("POST {POD}/portforward")).await, none);
        let wrong = (400, "container z is not valid for pod p".to_owned());
        assert_eq!(said(&format!("GET {POD}/log?container=z")).await, wrong);
        let nothing = (400, "you must specify at least 1 of stdin, stdout, stderr".to_owned());
        assert_eq!(said(&format!("POST {POD}/exec?command=a")).await, nothing);
        assert_eq!(said(&format!("POST {POD}/log")).await.0, 405);
        assert_eq!(said(&format!("GET {POD}x/log")).await.0, 404);
        assert_eq!(said(&format!("GET {POD}/log?tailLines=-1")).await.0, 422);

        pod["metadata"]["name"] = "q".into();
        pod["spec"]["nodeName"] = "n1".into();
        world.send("POST /api/v1/namespaces/default/pods", &pod).await.ok();
        let plain = said(&format!("POST {}q/exec?command=a&stdout=1", &POD[..POD.len() - 1])).await;
        assert_eq!(plain, (400, "Upgrade request required".to_owned()));
        let headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let words = format!("POST {}q/portforward", &POD[..POD.len() - 1]);
        let gone = world.ask(Ask { words: &words, headers: &headers, ..Ask::default() }).await;
        let why = gone.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(gone.code, 503, "{why}");
        assert!(why.starts_with("node \"n1\" is not connected to this server"), "{why}");
    });
}
