//! The files port: its driver with inotify does what its model in the simulator does. Each body
//! here runs twice, on the model and on files of this machine.

#![cfg(target_os = "linux")]

mod linux;
mod model;
mod world;

use self::linux::Linux;
use self::world::{Asking, World};
use kubesim_actors::ports::files::Request;
use kubesim_backends::files::Files;
use kubesim_backends::port::{Answer, Closed, Port};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Two tests of each body.
macro_rules! alike {
    ($($body:ident)*) => {
        mod on_the_model {
            $(#[test] fn $body() { crate::$body(&mut crate::model::Model::default()); })*
        }
        mod on_linux {
            $(#[test] fn $body() { crate::$body(&mut crate::linux::Linux::new()); })*
        }
    };
}

alike! {
    a_watch_hears_of_every_kind_of_change
    a_watch_follows_symlinks_wherever_they_turn
    what_is_not_there_yet_is_heard_of_when_it_comes
    a_volume_of_kubernetes_changes_as_a_whole
    a_directory_shows_its_files_one_by_one
    a_directory_may_become_a_file
    a_loop_of_links_is_no_file
    what_is_written_is_there_at_once_and_whole
    bad_requests_are_refused_with_their_reason
    everybody_who_watches_is_told
}

const CONF: &str = "/etc/resolv.conf";

fn a_watch_hears_of_every_kind_of_change(world: &mut impl World) {
    world.rename_over(CONF, "a");
    world.watch(CONF);
    world.shows(&[(CONF, Some("a"))]);
    world.write_in_place(CONF, "b");
    world.shows(&[(CONF, Some("b"))]);
    world.rename_over(CONF, "c");
    world.shows(&[(CONF, Some("c"))]);
    world.write_in_place(CONF, "the new one is watched");
    world.shows(&[(CONF, Some("the new one is watched"))]);
    world.truncate(CONF);
    world.shows(&[(CONF, Some(""))]);
    world.write_in_place(CONF, "d");
    world.shows(&[(CONF, Some("d"))]);
    world.remove(CONF);
    world.shows(&[(CONF, None)]);
    world.write_in_place(CONF, "e");
    world.shows(&[(CONF, Some("e"))]);
    world.rename_over(CONF, "e");
    world.write_in_place("/etc/hosts", "another file");
    world.shows(&[]);
}

/// As systemd-resolved, NetworkManager and their kin have it.
fn a_watch_follows_symlinks_wherever_they_turn(world: &mut impl World) {
    world.rename_over("/run/a.conf", "a");
    world.rename_over("/run/b.conf", "b");
    world.symlink(CONF, "../run/a.conf");
    world.watch(CONF);
    world.shows(&[(CONF, Some("a"))]);
    world.write_in_place("/run/a.conf", "a2");
    world.shows(&[(CONF, Some("a2"))]);
    world.rename_over("/run/a.conf", "a3");
    world.shows(&[(CONF, Some("a3"))]);
    world.symlink(CONF, "/run/b.conf");
    world.shows(&[(CONF, Some("b"))]);
    world.write_in_place("/run/a.conf", "a4");
    world.shows(&[]);
    world.write_in_place(CONF, "b2");
    world.shows(&[(CONF, Some("b2"))]);
    assert_eq!(world.read("/run/b.conf").as_deref(), Some("b2"), "the target was written");
    // A chain, whose middle turns.
    world.symlink("/run/link", "a.conf");
    world.symlink(CONF, "/run/link");
    world.shows(&[(CONF, Some("a4"))]);
    world.symlink("/run/link", "/run/b.conf");
    world.shows(&[(CONF, Some("b2"))]);
    world.remove("/run/b.conf");
    world.shows(&[(CONF, None)]);
    world.rename_over("/run/b.conf", "back");
    world.shows(&[(CONF, Some("back"))]);
    // The link itself is replaced.
    world.rename_over(CONF, "c");
    world.shows(&[(CONF, Some("c"))]);
    assert_eq!(world.read("/run/b.conf").as_deref(), Some("back"));
}

fn what_is_not_there_yet_is_heard_of_when_it_comes(world: &mut impl World) {
    let path = "/run/flannel/deep/subnet.env";
    world.watch(path);
    world.shows(&[(path, None)]);
    world.make_directory("/run/flannel");
    world.make_directory("/run/flannel/deep");
    world.shows(&[]);
    world.rename_over(path, "a");
    world.shows(&[(path, Some("a"))]);
    world.watch(CONF);
    world.shows(&[(CONF, None)]);
    world.symlink(CONF, "/run/none/resolv.conf");
    world.shows(&[]);
    world.rename_over("/run/none/resolv.conf", "b");
    world.shows(&[(CONF, Some("b"))]);
}

/// `..data` turns to another directory, and every file with it.
fn a_volume_of_kubernetes_changes_as_a_whole(world: &mut impl World) {
    world.rename_over("/vol/..1/a", "a1");
    world.rename_over("/vol/..1/b", "b1");
    world.symlink("/vol/..data", "..1");
    world.symlink("/vol/a", "..data/a");
    world.symlink("/vol/b", "..data/b");
    world.watch("/vol");
    world.shows(&[("/vol/a", Some("a1")), ("/vol/b", Some("b1"))]);
    world.watch("/vol/a");
    world.shows(&[("/vol/a", Some("a1"))]);
    world.rename_over("/vol/..2/a", "a2");
    world.rename_over("/vol/..2/b", "b1");
    world.shows(&[]);
    world.symlink("/vol/..data", "..2");
    let news = world.news();
    // By both that watch it.
    let told = ("/vol/a".to_owned(), Some("a2".to_owned()));
    assert_eq!(news, [told.clone(), told]);
}

fn a_directory_shows_its_files_one_by_one(world: &mut impl World) {
    let directory = "/etc/manifests";
    world.make_directory(directory);
    world.watch(directory);
    world.shows(&[]);
    world.rename_over("/etc/manifests/a.json", "{}");
    world.shows(&[("/etc/manifests/a.json", Some("{}"))]);
    world.rename_over("/etc/manifests/.b.json.swp", "half");
    world.rename_over("/etc/manifests/deep/c.json", "{}");
    world.shows(&[]);
    world.write_in_place("/etc/manifests/d.json", "");
    world.shows(&[("/etc/manifests/d.json", Some(""))]);
    world.write_in_place("/etc/manifests/d.json", "{1}");
    world.shows(&[("/etc/manifests/d.json", Some("{1}"))]);
    world.remove("/etc/manifests/a.json");
    world.shows(&[("/etc/manifests/a.json", None)]);
    world.write("/etc/manifests/e.json", "{2}").expect("written");
    world.shows(&[("/etc/manifests/e.json", Some("{2}"))]);
    // Two at once.
    world.write_in_place("/etc/manifests/d.json", "{3}");
    world.remove("/etc/manifests/e.json");
    world.shows(&[("/etc/manifests/d.json", Some("{3}")), ("/etc/manifests/e.json", None)]);
}

fn a_directory_may_become_a_file(world: &mut impl World) {
    world.rename_over("/run/one/x", "x");
    world.rename_over("/run/two", "a file");
    world.symlink("/etc/either", "/run/one");
    world.watch("/etc/either");
    world.shows(&[("/etc/either/x", Some("x"))]);
    world.symlink("/etc/either", "/run/two");
    world.shows(&[("/etc/either", Some("a file")), ("/etc/either/x", None)]);
    world.symlink("/etc/either", "/run/one");
    world.shows(&[("/etc/either", None), ("/etc/either/x", Some("x"))]);
}

fn a_loop_of_links_is_no_file(world: &mut impl World) {
    world.symlink("/etc/a", "/etc/b");
    world.symlink("/etc/b", "a");
    assert_eq!(world.read("/etc/a"), None);
    world.watch("/etc/a");
    world.shows(&[("/etc/a", None)]);
    world.rename_over("/etc/b", "an end");
    world.shows(&[("/etc/a", Some("an end"))]);
    // No way leads above the root.
    world.symlink("/etc/c", "../../../../etc/b");
    assert_eq!(world.read("/etc/c").as_deref(), Some("an end"));
}

fn what_is_written_is_there_at_once_and_whole(world: &mut impl World) {
    assert_eq!(world.read("/run/flannel/subnet.env"), None);
    world.watch("/run/flannel/subnet.env");
    world.shows(&[("/run/flannel/subnet.env", None)]);
    assert_eq!(world.write("/run/flannel/subnet.env", "A=1\n"), Ok(()));
    assert_eq!(world.read("/run/flannel/subnet.env").as_deref(), Some("A=1\n"));
    world.shows(&[("/run/flannel/subnet.env", Some("A=1\n"))]);
    assert_eq!(world.write("/run/flannel/subnet.env", "A=1\n"), Ok(()));
    world.shows(&[]);
    // A link is replaced, not followed; one on the way to it is followed.
    world.symlink("/etc/link", "/run/flannel/subnet.env");
    world.symlink("/etc/env", "/run/flannel");
    assert_eq!(world.write("/etc/link", "B"), Ok(()));
    assert_eq!(world.write("/etc/env/other", "C"), Ok(()));
    assert_eq!(world.read("/etc/link").as_deref(), Some("B"));
    assert_eq!(world.read("/run/flannel/other").as_deref(), Some("C"));
    world.shows(&[]);
    assert_eq!(world.delete("/run/flannel/subnet.env"), Ok(()));
    world.shows(&[("/run/flannel/subnet.env", None)]);
    assert_eq!(world.delete("/run/flannel/subnet.env"), Ok(()), "it is gone");
}

fn bad_requests_are_refused_with_their_reason(world: &mut impl World) {
    world.make_directory("/etc/manifests");
    world.symlink("/etc/link", "/etc/manifests");
    for path in ["/etc/manifests", "/etc/link"] {
        assert_eq!(world.write(path, "x"), Err("is a directory".to_owned()), "{path}");
        assert_eq!(world.delete(path), Err("is a directory".to_owned()), "{path}");
        assert_eq!(world.read(path), None, "{path}");
    }
    for path in ["etc/x", "/etc/x/", ""] {
        assert_eq!(world.write(path, "x"), Err("no absolute path of a file".to_owned()), "{path}");
    }
}

fn everybody_who_watches_is_told(world: &mut impl World) {
    world.rename_over("/run/a.conf", "a");
    world.symlink(CONF, "/run/a.conf");
    world.watch(CONF);
    world.watch("/run/a.conf");
    world.watch("/run");
    let news = world.news();
    assert_eq!(news.len(), 3, "{news:?}");
    world.write_in_place("/run/a.conf", "b");
    let mut news = world.news();
    news.sort();
    let b = |path: &str| (path.to_owned(), Some("b".to_owned()));
    assert_eq!(news, [b(CONF), b("/run/a.conf"), b("/run/a.conf")]);
}

// What only a real file system can show.

#[test]
fn nothing_leads_out_of_the_root() {
    let mut world = Linux::new();
    let secret = world.root.with_extension("secret");
    fs::write(&secret, "outside").expect("written");
    world.symlink("/etc/absolute", secret.to_str().expect("text"));
    let above = format!("../../../../../../..{}", secret.display());
    world.symlink("/etc/relative", &above);
    for path in ["/etc/absolute", "/etc/relative"] {
        assert_eq!(world.read(path), None, "{path}");
    }
    let through = format!("/etc/absolute/../..{}", secret.display());
    assert_eq!(world.read(&through), None);
    assert_eq!(world.write("/../../x", "x"), Ok(()));
    assert_eq!(fs::read_to_string(world.root.join("x")).ok().as_deref(), Some("x"));
    assert_eq!(fs::read_to_string(&secret).ok().as_deref(), Some("outside"));
    fs::remove_file(secret).expect("removed");
}

#[test]
fn a_write_keeps_the_mode_and_leaves_nothing_behind() {
    let mut world = Linux::new();
    let place = world.root.join("etc/key");
    fs::write(&place, "old").expect("written");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).expect("a mode");
    assert_eq!(world.write("/etc/key", "new"), Ok(()));
    let mode = fs::metadata(&place).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&place).ok().as_deref(), Some("new"));
    // A file where a directory should be.
    let refused = world.write("/etc/key/below", "x").expect_err("no directory");
    assert!(refused.contains("/etc/key/below"), "{refused}");
    let left: Vec<_> = fs::read_dir(world.root.join("etc"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["key"]);
}

#[test]
fn what_is_no_text_does_no_harm() {
    let mut world = Linux::new();
    let fifo = world.root.join("etc/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    fs::write(world.root.join("etc/bytes"), [b'a', 0xff, b'b']).expect("written");
    fs::write(world.root.join("etc/large"), vec![b'x'; (10 << 20) + 1]).expect("written");
    assert_eq!(world.read("/etc/fifo"), None);
    assert_eq!(world.read("/etc/large"), None);
    assert_eq!(world.read("/etc/bytes").as_deref(), Some("a\u{fffd}b"));
    world.watch("/etc");
    world.shows(&[("/etc/bytes", Some("a\u{fffd}b"))]);
}

#[test]
fn manifests_are_shown_as_json() {
    let mut world = Linux::new();
    world.driver = Files::below(&world.root).with_manifests("/etc/manifests");
    world.rename_over("/etc/manifests/a.yaml", "# a pod\nkind: Pod\nmetadata: {name: a}\n");
    world.rename_over("/etc/manifests/b.json", "{\"kind\": \"Pod\"}");
    world.rename_over("/etc/manifests/c.yaml", "kind: [");
    world.rename_over("/etc/other/a.yaml", "kind: Pod\n");
    world.watch("/etc/manifests");
    world.watch("/etc/other");
    world.shows(&[
        ("/etc/manifests/a.yaml", Some("{\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}}")),
        ("/etc/manifests/b.json", Some("{\"kind\": \"Pod\"}")),
        ("/etc/manifests/c.yaml", Some("kind: [")),
        ("/etc/other/a.yaml", Some("kind: Pod\n")),
    ]);
}

/// Changes come as fast as they can: what is shown in the end is what is there in the end.
#[test]
fn a_storm_of_changes_ends_with_what_is_there() {
    let mut world = Linux::new();
    world.symlink(CONF, "/run/0/conf");
    world.watch(CONF);
    world.watch("/etc");
    let root = world.root.clone();
    let storm = std::thread::spawn(move || {
        for n in 0..2000_u32 {
            let directory = root.join(format!("run/{}", n % 3));
            fs::create_dir_all(&directory).expect("a directory");
            match n % 7 {
                0 => fs::write(directory.join("conf"), format!("in place {n}")).expect("written"),
                1 => drop(fs::remove_dir_all(root.join(format!("run/{}", n / 7 % 3)))),
                2 => {
                    let link = root.join("etc/.new");
                    let target = format!("/run/{}/conf", n / 7 % 3);
                    std::os::unix::fs::symlink(target, &link).expect("a link");
                    fs::rename(link, root.join("etc/resolv.conf")).expect("renamed");
                }
                3 => drop(fs::remove_file(root.join("etc/resolv.conf"))),
                _ => {
                    let new = root.join(format!("run/new-{n}"));
                    fs::write(&new, format!("renamed {n}")).expect("written");
                    fs::rename(new, directory.join("conf")).expect("renamed");
                }
            }
        }
        std::os::unix::fs::symlink("/run/1/conf", root.join("etc/.new")).expect("a link");
        fs::rename(root.join("etc/.new"), root.join("etc/resolv.conf")).expect("renamed");
        fs::create_dir_all(root.join("run/1")).expect("a directory");
        fs::write(root.join("run/1/conf"), "the end").expect("written");
    });
    let mut told = Vec::new();
    while !storm.is_finished() {
        told.extend(world.news());
    }
    storm.join().expect("its end");
    told.extend(world.news());
    let last = told.iter().rfind(|(path, _)| path == CONF).expect("something was told");
    assert_eq!(last.1.as_deref(), Some("the end"));
    let ends = told.iter().filter(|(_, content)| content.as_deref() == Some("the end"));
    assert_eq!(ends.count(), 2, "both who watch are told");
}

#[test]
fn who_no_longer_listens_is_no_longer_told() {
    let world = Linux::new();
    let answer = Answer::new(|_| async { Err(Closed) });
    world.finish(world.driver.perform(Request::Watch { path: CONF.into() }, answer));
}
