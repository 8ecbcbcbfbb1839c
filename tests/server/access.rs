//! Who may what, with `kubectl`: `--as`, `auth can-i`, `auth whoami`, tokens.

use super::each;

#[test]
fn kubectl_asks_who_may_what() {
    each(|_, server| {
        let refused = server.fails("get pods --as jane");
        let message = "Error from server (Forbidden): pods is forbidden: User \"jane\" cannot list \
                       resource \"pods\" in API group \"\" in the namespace \"default\"\n";
        assert_eq!(refused, message);
        server.kubectl("create rolebinding b --clusterrole=view --user=jane");
        assert_eq!(server.kubectl("get pods -o name --as jane"), "");
        assert_eq!(server.kubectl("auth can-i list pods --as jane"), "yes\n");
        let out = server.run(&["auth", "can-i", "delete", "pods", "--as", "jane"], "");
        assert_eq!((out.status.code(), &out.stdout[..]), (Some(1), &b"no\n"[..]));
        let rules = server.kubectl("auth can-i --list --as jane");
        assert!(rules.contains("configmaps") && rules.contains("[get list watch]"), "{rules}");
        // Release 1.27 asks by the beta of the review only.
        if server.kubectl("version --client -o json").contains("\"minor\": \"27\"") {
            return;
        }
        let me = server.kubectl("auth whoami -o jsonpath={.status.userInfo.username}");
        assert_eq!(me, "kubernetes-admin");
        let groups = "{.status.userInfo.groups}";
        let me =
            server.kubectl(&format!("auth whoami --as joe --as-group ops -o jsonpath={groups}"));
        assert_eq!(me, "[\"ops\",\"system:authenticated\"]");
    });
}
