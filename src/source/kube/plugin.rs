//! Credential plugins (`exec` in a kubeconfig; client.authentication.k8s.io). They are run here and not by the kube crate:
//! it asks one several times for each client, cannot end one that hangs, and starts another beside it for each request.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use ::kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::client::shorten;

/// Most octets of what a plugin prints: a certificate chain with its key takes some 10,000.
const MAX_OUTPUT: u64 = 256 << 10;
/// A credential is renewed this long before its end, or at half of its life if that is later.
const MARGIN: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Credential>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    token: Option<String>,
    /// PEM.
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    /// RFC 3339.
    expiration_timestamp: Option<String>,
}

/// Whether a user has a plugin and nothing that comes before it.
pub fn is_asked(user: &AuthInfo) -> bool {
    let basic = user.username.is_some() && user.password.is_some();
    user.exec.is_some() && !basic && user.token.is_none() && user.token_file.is_none() && user.auth_provider.is_none()
}

/// Asks the user's plugin, which is ended after `patience`, and puts its credential in the plugin's place. Gives when to
/// ask again. An error is one sentence without what the plugin printed, which may hold a token.
pub async fn ask(user: &mut AuthInfo, patience: Duration) -> Result<Option<Instant>, String> {
    let Some(exec) = user.exec.take() else { return Ok(None) };
    let (status, printed) = match timeout(patience, run(&exec)).await {
        Ok(ended) => ended?,
        Err(_) => return Err("the credential plugin does not end".to_owned()),
    };
    if !status.success() {
        return Err(shorten(&format!("{} ended with {status}", exec.command.unwrap_or_default())));
    }
    let credential: Option<ExecCredential> = serde_saphyr::from_slice(&printed).ok();
    let credential = credential.and_then(|c| c.status).ok_or("the plugin printed no ExecCredential")?;
    match (credential.token, credential.client_certificate_data, credential.client_key_data) {
        (token, Some(certificate), Some(key)) => {
            user.client_certificate_data = Some(base64(certificate)?);
            user.client_key_data = Some(base64(key)?.into());
            user.token = token.map(Into::into);
        }
        (Some(token), _, _) => user.token = Some(token.into()),
        (None, _, _) => return Err("the plugin printed neither a token nor a certificate with its key".to_owned()),
    }
    let Some(end) = credential.expiration_timestamp else { return Ok(None) };
    let end: Timestamp = end.parse().map_err(|_| "the plugin's expirationTimestamp is no time".to_owned())?;
    let life = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
    Ok(Some(Instant::now() + life - MARGIN.min(life / 2)))
}

/// Ends with this future: a plugin does not outlive the wish for its answer.
async fn run(exec: &ExecConfig) -> Result<(ExitStatus, Vec<u8>), String> {
    let command = exec.command.as_deref().ok_or("the credential plugin has no command")?;
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err("the credential plugin wants a terminal (interactiveMode: Always), and there is none".to_owned());
    }
    if exec.provide_cluster_info && exec.cluster.is_none() {
        return Err("the credential plugin wants to know the cluster, which is not described".to_owned());
    }
    let mut spec = json!({"interactive": false});
    if exec.provide_cluster_info {
        spec["cluster"] = json!(exec.cluster);
    }
    let info = json!({"kind": "ExecCredential", "apiVersion": exec.api_version, "spec": spec});
    let variables =
        exec.env.iter().flatten().filter_map(|variable| Some((variable.get("name")?, variable.get("value")?)));
    let mut child = Command::new(command)
        .args(exec.args.iter().flatten())
        .envs(variables)
        .env("KUBERNETES_EXEC_INFO", info.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| shorten(&format!("the credential plugin {command} cannot be run: {error}")))?;
    let mut printed = Vec::new();
    let output = child.stdout.take().ok_or("the credential plugin has no output")?;
    output
        .take(MAX_OUTPUT)
        .read_to_end(&mut printed)
        .await
        .map_err(|error| format!("the credential plugin cannot be read: {error}"))?;
    let status = child.wait().await.map_err(|error| format!("the credential plugin's end is not known: {error}"))?;
    Ok((status, printed))
}

/// As a kubeconfig has it.
fn base64(text: String) -> Result<String, String> {
    match serde_json::to_value(ByteString(text.into_bytes())) {
        Ok(serde_json::Value::String(text)) => Ok(text),
        _ => Err("a certificate cannot be encoded".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far above what any of it takes, also on a loaded machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn user(script: &str) -> AuthInfo {
        let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh", "args": ["-c", script],
                          "env": [{"name": "SECRET", "value": "s3cret"}], "interactiveMode": "Never"});
        serde_json::from_value(json!({"exec": exec})).unwrap()
    }

    fn printing(status: &str) -> AuthInfo {
        user(&format!("echo '{{\"kind\":\"ExecCredential\",\"status\":{status}}}'"))
    }

    /// As a kubeconfig would have it.
    fn written(user: &AuthInfo) -> serde_json::Value {
        serde_json::to_value(user).unwrap()
    }

    #[tokio::test]
    async fn a_credential_takes_the_plugins_place() {
        let mut token = user(r#"echo "{status: {token: $SECRET}}""#);
        assert_eq!(ask(&mut token, PATIENCE).await, Ok(None));
        assert_eq!((token.exec.is_none(), &written(&token)["token"]), (true, &json!("s3cret")));

        let mut certificate = printing(r#"{"clientCertificateData":"a\\nb","clientKeyData":"key"}"#);
        assert_eq!(ask(&mut certificate, PATIENCE).await, Ok(None));
        let written = written(&certificate);
        assert_eq!(written["client-certificate-data"], json!("YQpi"), "\"a\", a line's end, \"b\"");
        assert_eq!((&written["client-key-data"], &written["token"]), (&json!("a2V5"), &json!(null)));
    }

    #[tokio::test]
    async fn it_is_asked_again_before_its_credential_ends() {
        for (life, early) in [(3600_i64, 60), (40, 20), (0, 0), (-100, -100)] {
            let end = Timestamp::now() - Duration::from_secs(1000) + Duration::from_secs((1000 + life) as u64);
            let before = Instant::now();
            let mut user = printing(&format!(r#"{{"token":"t","expirationTimestamp":"{end}"}}"#));
            let at = ask(&mut user, PATIENCE).await.unwrap().expect("it has an end");
            let want = Duration::from_secs((life - early) as u64);
            // The plugin took some of its life.
            assert!(at + Duration::from_secs(1) >= before + want, "{life}");
            assert!(at <= Instant::now() + want, "{life}");
        }
    }

    #[tokio::test]
    async fn what_went_wrong_is_told_without_what_was_printed() {
        for (mut user, word) in [
            (user("echo s3cret; echo s3cret >&2; exit 3"), "/bin/sh ended with exit status: 3"),
            (user("echo s3cret"), "no ExecCredential"),
            (user("echo '{}'"), "no ExecCredential"),
            (printing(r#"{"clientKeyData":"s3cret"}"#), "neither a token nor a certificate"),
            (printing(r#"{"token":"s3cret","expirationTimestamp":"s3cret"}"#), "is no time"),
            (user("exec cat /dev/zero"), "/bin/sh ended with signal: 13 (SIGPIPE)"),
        ] {
            let problem = ask(&mut user, PATIENCE).await.expect_err(word);
            assert!(problem.contains(word) && !problem.contains("s3cret"), "{problem}");
        }
        let mut missing = user("");
        missing.exec.as_mut().unwrap().command = Some("/nowhere/plugin".to_owned());
        let problem = ask(&mut missing, PATIENCE).await.unwrap_err();
        assert!(problem.contains("/nowhere/plugin cannot be run"), "{problem}");
        let mut hangs = user("exec sleep 1000");
        let problem = ask(&mut hangs, Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(problem, "the credential plugin does not end");
    }
}
