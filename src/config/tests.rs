use super::*;
use clap::CommandFactory;

fn program() -> clap::Command {
    declare(crate::Command::command())
}

/// A file of a test's own, removed in the end.
struct File(PathBuf);

impl File {
    fn of(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("kubesim-{name}-{}", std::process::id()));
        fs::write(&path, text).expect("a file");
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn wrong(text: &str) -> String {
    read(&program(), "c.toml", text).expect_err("it is wrong").to_string()
}

#[test]
fn flags_come_from_the_file_and_those_of_the_command_line_go_before() {
    let file = File::of(
        "flags",
        "[server]\nlisten = \"127.0.0.1:7443\"\nshutdown-delay-duration = 3\n\
         without = [\"scheduler\", \"controllers\"]\n",
    );
    let given = format!("kubesim server --config {} --listen 127.0.0.1:8443", file.0.display());
    let filled = fill(&program(), words(&given), None).expect("it is right");
    let said: Vec<_> = filled.iter().map(|word| word.to_string_lossy()).collect();
    assert_eq!(said[..2], ["kubesim", "server"]);
    assert_eq!(said[2..4], ["--shutdown-delay-duration=3", "--without=scheduler,controllers"]);
    assert_eq!(
        said[4..],
        words(&given).iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>()[2..]
    );
    assert!(program().try_get_matches_from(filled).is_ok());
}

#[test]
fn the_usual_file_need_not_be_there_but_one_that_is_named_must() {
    let nowhere = Path::new("/nowhere/config.toml");
    let plain = words("kubesim server");
    assert_eq!(fill(&program(), plain.clone(), Some(nowhere)), Ok(plain.clone()));
    let file = File::of("usual", "[server]\nstore = \"memory\"\n");
    let filled = fill(&program(), plain, Some(&file.0)).expect("it is right");
    assert_eq!(filled, words("kubesim server --store=memory"));
    let told = words("kubesim server --config /nowhere/config.toml");
    let why = fill(&program(), told, None).expect_err("it is not there").to_string();
    assert!(why.contains("cannot read the configuration") && why.contains("/nowhere"), "{why}");
}

#[test]
fn what_has_no_file_keeps_its_words() {
    let file = File::of("others", "[server]\nstore = \"memory\"\n");
    for plain in
        ["kubesim run x.toml", "kubesim server backup f", "kubesim server --lisen 1", "kubesim"]
    {
        assert_eq!(fill(&program(), words(plain), Some(&file.0)), Ok(words(plain)), "{plain}");
    }
}

#[test]
fn all_that_is_wrong_is_shown_where_it_stands() {
    let why = wrong(
        "listen = \"x\"\n[server]\nlisten = \"x\"\nstor = \"memory\"\nwithout = \"sheduler\"\n\
                     data-dir = 1.5\n[serv]\n",
    );
    let starts = [
        "error: `listen` stands below no command\n --> c.toml:1:1\n",
        "error: `listen` is \"x\": invalid IPv4 socket address syntax\n --> c.toml:3:10\n",
        "error: unknown key `stor` in [server]\n --> c.toml:4:1\n",
        "error: `without` is \"sheduler\": no value of this flag\n --> c.toml:5:11\n",
        "error: `data-dir` is a number, expected a text\n --> c.toml:6:12\n",
        "error: unknown table [serv]\n --> c.toml:7:2\n",
    ];
    let found: Vec<_> = starts.iter().map(|start| why.find(start)).collect();
    assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{found:?}\n{why}");
    for help in ["did you mean `store`?", "did you mean `scheduler`?", "did you mean `server`?"] {
        assert!(why.contains(help), "{help}: {why}");
    }
    assert!(wrong("[server\n").contains("not TOML"));
    assert!(wrong("server = 3\n").contains("expected a table"));
    assert!(wrong("[server]\nconfig = \"x\"\n").contains("unknown key `config`"));
}

/// Else its key could not be given.
#[test]
fn all_flags_take_a_value() {
    for name in COMMANDS.iter().filter(|name| is_here(&program(), name)) {
        let command = program();
        let sub = command.find_subcommand(name).expect("it is here");
        for arg in sub.get_arguments() {
            assert!(arg.get_action().takes_values(), "{name} {arg}");
        }
    }
}
