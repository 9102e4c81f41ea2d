//! Kubeconfigs in Secrets, good ones and refused ones.

use super::*;

const GOOD: &str = "
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443', certificate-authority-data: Y2E=}}]
users: [{name: u, user: {token: very-secret}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
";
const SERVER: &str = "server: 'https://192.0.2.1:6443'";
const USER: &str = "{token: very-secret}";

/// A Secret as the API has it.
fn secret(name: &str, kubeconfig: &str) -> Vec<u8> {
    let data = ByteString(kubeconfig.as_bytes().to_vec());
    serde_json::to_vec(&serde_json::json!({
        "metadata": {"name": name, "labels": {LABEL: ""}, "resourceVersion": "7"},
        "data": {KUBECONFIG: data},
    }))
    .unwrap()
}

/// `ok`, or the sentence, in which there must be nothing of the data.
fn judged(kubeconfig: &str, local_servers: bool) -> String {
    match read("oslo", &secret("oslo", kubeconfig), local_servers) {
        Ok((name, registration)) => {
            assert_eq!((name.as_str(), registration.region), ("oslo", None));
            "ok".to_owned()
        }
        Err(problem) => {
            let shown = format!("{problem} {problem:?}");
            assert!(!shown.contains("secret") && !shown.contains("192.0.2.1"), "{shown}");
            assert!(Unfit::REASONS.contains(&problem.reason()));
            problem.to_string().replace("data.kubeconfig: ", "")
        }
    }
}

#[test]
fn what_may_stand_in_a_kubeconfig() {
    let user = |fields: &str| GOOD.replace(USER, &format!("{{token: very-secret, {fields}}}"));
    let cluster = |fields: &str| GOOD.replace(SERVER, &format!("{SERVER}, {fields}"));
    let of_user = |field: &str| format!("users[0].user.{field} is not allowed here");
    let of_cluster = |field: &str| format!("clusters[0].cluster.{field} is not allowed here");
    let missing = |field: &str| format!("{field} is missing, or names nothing that is there");
    let cases: Vec<(String, String)> = vec![
        (GOOD.to_owned(), "ok".to_owned()),
        // What changes nothing of how the server is talked to.
        (user("extensions: []"), "ok".to_owned()),
        (cluster("insecure-skip-tls-verify: false, tls-server-name: api, disable-compression: true"), "ok".to_owned()),
        (cluster("proxy-url: '', certificate-authority: ''"), "ok".to_owned()),
        (format!("{GOOD}preferences: {{colors: true}}\n"), "ok".to_owned()),
        // Programs.
        (user("exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh}"), of_user("exec")),
        (user("auth-provider: {name: gcp, config: {cmd-path: /bin/sh}}"), of_user("auth-provider")),
        (user("auth-provider: {name: oidc, config: {}}"), of_user("auth-provider")),
        // Files.
        (user("tokenFile: /run/secrets/kubernetes.io/serviceaccount/token"), of_user("tokenFile")),
        (user("client-certificate: /a"), of_user("client-certificate")),
        (user("client-key: /a"), of_user("client-key")),
        (cluster("certificate-authority: /etc/passwd"), of_cluster("certificate-authority")),
        // Ways around TLS.
        (cluster("insecure-skip-tls-verify: true"), of_cluster("insecure-skip-tls-verify")),
        (cluster("proxy-url: 'socks5://192.0.2.1:1080'"), of_cluster("proxy-url")),
        // Who one is, said otherwise.
        (user("username: a, password: very-secret"), of_user("username")),
        (user("password: very-secret"), of_user("password")),
        (user("as: system:admin"), of_user("as")),
        (user("as-uid: '1'"), of_user("as-uid")),
        (user("as-groups: ['system:masters']"), of_user("as-groups")),
        (user("as-user-extra: {a: [b]}"), of_user("as-user-extra")),
        // Also where no context names it.
        (
            GOOD.replace("users: [", "users: [{name: other, user: {exec: {command: a}}}, "),
            "users[0].user.exec is not allowed here".to_owned(),
        ),
        (
            GOOD.replace(
                "clusters: [",
                "clusters: [{name: o, cluster: {server: 'https://a', proxy-url: 'http://b'}}, ",
            ),
            "clusters[0].cluster.proxy-url is not allowed here".to_owned(),
        ),
        (
            format!("{GOOD}---\nusers: [{{name: other, user: {{exec: {{command: a}}}}}}]\n"),
            "users[1].user.exec is not allowed here".to_owned(),
        ),
        // Parts that are missing.
        (String::new(), missing("current-context")),
        (GOOD.replace("current-context: x", ""), missing("current-context")),
        (GOOD.replace("current-context: x", "current-context: other"), missing("current-context")),
        (GOOD.replace("{cluster: c, user: u}", "{cluster: other, user: u}"), missing("the current context's cluster")),
        (GOOD.replace("{cluster: c, user: u}", "{cluster: c, user: other}"), missing("the current context's user")),
        (GOOD.replace("{cluster: c, user: u}", "{cluster: c}"), missing("the current context's user")),
        (GOOD.replace(&format!("{SERVER}, "), ""), missing("clusters[0].cluster.server")),
        // No kubeconfig.
        ("a: [very-secret".to_owned(), "data.kubeconfig is no kubeconfig: see line 1, column 4".to_owned()),
        ("clusters: very-secret".to_owned(), "data.kubeconfig is no kubeconfig: see line 1, column 11".to_owned()),
    ];
    let mut wrong = Vec::new();
    for (kubeconfig, want) in &cases {
        let got = judged(kubeconfig, false);
        if got != *want {
            wrong.push(format!("{kubeconfig}\nwant {want}\ngot  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn where_a_server_may_be() {
    const NO_URL: &str = "clusters[0].cluster.server is not an https:// URL of a host, and perhaps a port";
    let with = |server: &str, local: bool| judged(&GOOD.replace("https://192.0.2.1:6443", server), local);
    for good in [
        "https://192.0.2.1",
        "https://10.0.0.1:6443/",
        "https://[2001:db8::1]:6443",
        "https://api.example:6443/k8s/clusters/c-1",
        "https://xn--a.example",
        "https://localhost.example",
        "https://1password.example",
        "HTTPS://api.example",
        "https://[64:ff9b::192.0.2.1]",
    ] {
        assert_eq!(with(good, false), "ok", "{good}");
    }
    for local in [
        "https://127.0.0.1:6443",
        "https://127.9.9.9",
        "https://0.0.0.0",
        "https://0.1.2.3",
        "https://169.254.169.254",
        "https://224.0.0.1",
        "https://255.255.255.255",
        "https://[::1]:6443",
        "https://[::]",
        "https://[fe80::1]",
        "https://[ff02::1]",
        "https://[::ffff:127.0.0.1]",
        "https://[::127.0.0.1]",
        "https://[64:ff9b::127.0.0.1]",
        "https://localhost:6443",
        "https://LocalHost.",
        "https://a.localhost",
    ] {
        assert!(with(local, false).contains("(clusterSecrets.localServers would allow it)"), "{local}");
        assert_eq!(with(local, true), "ok", "{local}");
    }
    for bad in [
        "http://192.0.2.1:6443",
        "http://127.0.0.1:6443",
        "192.0.2.1:6443",
        "unix:///run/a",
        "/run/a",
        "https://",
        "https://very-secret@192.0.2.1",
        "https://192.0.2.1?very-secret",
        // As the C library would read them.
        "https://127.1",
        "https://2130706433",
        "https://0x7f000001",
        "https://0177.0.0.1",
        "https://127.0.0.1.",
        "https://a.1",
        "https://a.0x7f",
        "https://[::1%25lo]",
    ] {
        for local in [false, true] {
            assert_eq!(with(bad, local), NO_URL, "{bad}");
        }
    }
}

#[test]
fn what_is_around_it() {
    let object = |text: &str| read("oslo", text.as_bytes(), false).unwrap_err();
    assert_eq!(read("Oslo.example", &secret("a", GOOD), false), Err(Unfit::Name));
    assert_eq!(read("a.b", &secret("a", GOOD), false), Err(Unfit::Name));
    assert_eq!(object(r#"{"metadata": {"name": "oslo"}}"#), Unfit::NoKubeconfig);
    assert_eq!(object(r#"{"metadata": {}, "data": null}"#), Unfit::NoKubeconfig);
    assert_eq!(object(r#"{"metadata": {}, "data": {"config": "YQ=="}}"#), Unfit::NoKubeconfig);
    assert_eq!(object(r#"{"metadata": {}, "data": {"kubeconfig": "very-secret"}}"#), Unfit::Object);
    assert_eq!(object(r#"{"metadata": {}, "data": {"kubeconfig": {}}}"#), Unfit::Object);
    assert_eq!(object(r#"{"metadata": {}, "data": {"kubeconfig": "//8="}}"#), Unfit::Syntax(None));
    let long = format!("{GOOD}#{}", "x".repeat(MOST));
    assert_eq!(read("oslo", &secret("oslo", &long), false), Err(Unfit::Large));
    let with_region = |region: &str| {
        let mut secret: serde_json::Value = serde_json::from_slice(&secret("oslo", GOOD)).unwrap();
        secret["metadata"]["annotations"] = serde_json::json!({REGION: region, "other": "x"});
        read("oslo", secret.to_string().as_bytes(), false)
    };
    assert_eq!(with_region("eu-north-1").unwrap().1.region, Some(Region("eu-north-1".into())));
    assert_eq!(with_region("-"), Err(Unfit::Region));
    assert_eq!(with_region(""), Err(Unfit::Region));
    assert_eq!(name_of(&secret("oslo", GOOD)).as_deref(), Some("oslo"));
    assert_eq!(name_of(b"{}"), None);
}

/// Written otherwise, it is the same: nothing begins anew. Another token is another one.
#[test]
fn what_is_used_of_it() {
    let credentials =
        |text: &str| read("oslo", &secret("oslo", text), false).unwrap().1.credentials.expect("there are some");
    let good = credentials(GOOD);
    let with_more = GOOD.replace("users: [", "users: [{name: other, user: {token: x}}, ") + "preferences: {}\n";
    assert_eq!(credentials(&with_more), good);
    assert_ne!(credentials(&GOOD.replace("very-secret", "another")), good);
    let used: serde_json::Value = serde_json::from_str(good.kubeconfig()).unwrap();
    assert_eq!(used["users"][0]["user"], serde_json::json!({"token": "very-secret"}));
    let cluster = &used["clusters"][0]["cluster"];
    assert_eq!(*cluster, serde_json::json!({"server": "https://192.0.2.1:6443", "certificate-authority-data": "Y2E="}));
    assert_eq!(format!("{good:?}"), "Credentials");
}
