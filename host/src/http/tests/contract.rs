//! The table, the document that is made of it, and what the server does, against each other.

use serde_json::Value;

use super::*;

/// The document of the API.
fn document(served: &Served) -> serde_json::Value {
    let artifacts = Artifacts::open(&served._dir.path().join("artifacts")).unwrap();
    let shared = table::Shared::new(served.control.clone(), artifacts);
    let rows = handlers::table(shared).finish().1;
    serde_json::from_str(&openapi::document(&rows)).unwrap()
}

#[tokio::test]
async fn the_document_is_served_and_the_one_that_is_checked_in_is_the_same() {
    let served = Served::start().await;
    let (status, text) = served.ask("GET", routes::OPENAPI, b"").await;
    assert_eq!(status, 200);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("SLUICE_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == checked_in,
        "host/openapi.json is not what the program serves: write it with SLUICE_BLESS=1, and look at the difference"
    );
}

#[tokio::test]
async fn the_document_says_of_each_operation_what_it_takes_and_answers() {
    let served = Served::start().await;
    let document = document(&served);
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let operations = operations(&served);
    for operation in &operations {
        let method = operation.method.as_str().to_lowercase();
        let said = &document["paths"][operation.path][&method];
        let at = format!("{} in the document: {said}", operation.id);
        assert_eq!(said["operationId"], operation.id, "{at}");
        assert_eq!(said["x-role"], operation.role.as_str(), "{at}");
        let summary = said["summary"].as_str().unwrap();
        assert!(summary.len() > 10 && summary.ends_with('.'), "{at}");
        let parameters = said["parameters"].as_array().cloned().unwrap_or_default();
        let in_path: Vec<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let names: Vec<&str> = openapi::names_of(operation.path).collect();
        assert_eq!(in_path, names, "{at}");
        let answers = said["responses"].as_object().unwrap();
        let good: Vec<&String> = answers.keys().filter(|key| key.starts_with('2')).collect();
        assert_eq!(good.len(), 1, "{at}");
        assert!(answers[good[0]]["content"].is_object(), "{at}");
        for status in ["401", "429", "500", "503"] {
            assert!(answers.contains_key(status), "{status}: {at}");
        }
    }
    let ids: std::collections::BTreeSet<&str> = operations.iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), operations.len(), "ids of operations are unique");

    // Every reference leads somewhere, and every field is explained.
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "there is no schema {name}");
    }
    for name in ["Node", "JobDetail", "Run", "ErrorBody", "DeployRequest"] {
        assert!(schemas.contains_key(name), "{name}");
    }
    assert_eq!(schemas["DeployRequest"]["additionalProperties"], false);
    let runs = &document["paths"][routes::RUNS]["get"];
    assert_eq!(runs["parameters"][0]["required"], false);
    let listed = &runs["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(listed["items"]["$ref"], "#/components/schemas/Run");
    assert!(!text.contains("crate::"));
}

/// What is no body of any route, with the statuses that it may have.
fn broken_bodies() -> Vec<(Vec<u8>, &'static [u16])> {
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    vec![
        (b"".to_vec(), &[400]),
        (b"{".to_vec(), &[400]),
        (b"\xff\xfe".to_vec(), &[400]),
        (b"{}trailing".to_vec(), &[400, 422]),
        (b"null".to_vec(), &[422]),
        (b"17".to_vec(), &[422]),
        (b"\"text\"".to_vec(), &[422]),
        (deep, &[422]),
        (b"[]".to_vec(), &[422]),
        (br#"{"no-such-field":1}"#.to_vec(), &[422]),
        (vec![b' '; 3 << 20], &[413]),
    ]
}

/// Values that hardly any field has; each is wrong for most.
fn odd_values() -> Vec<Value> {
    vec![
        serde_json::json!({"a": {"b": []}}),
        serde_json::json!([[1]]),
        serde_json::json!(-1),
        serde_json::json!(1.5),
        serde_json::json!(1e300),
        serde_json::json!("\u{0}"),
        serde_json::json!("x".repeat(100_000)),
    ]
}

/// A refusal as every refusal is.
fn is_refusal(at: &str, (status, head, body): (u16, String, String)) -> u16 {
    assert!((400..500).contains(&status), "{at}: {status} {body}");
    let error = error(&body);
    assert_eq!(error.code.http_status(), status, "{at}: {body}");
    assert!(!error.message.is_empty(), "{at}");
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/json"),
        "{at}: {head}"
    );
    status
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|to| to.rsplit('/').next()) {
        Some(name) => &document["components"]["schemas"][name],
        None => schema,
    }
}

#[tokio::test]
async fn what_is_no_body_of_a_route_is_refused_with_the_error_object() {
    let served = Served::start().await;
    let document = document(&served);
    let token = format!("Authorization: Bearer {}\r\n", served.token.as_str());
    let mut looked_at = 0;
    for operation in operations(&served) {
        let method = operation.method.as_str();
        let said = &document["paths"][operation.path][method.to_lowercase()];
        let json = &said["requestBody"]["content"]["application/json"]["schema"];
        if json.is_null() {
            continue;
        }
        looked_at += 1;
        let path = path_of(&operation);
        for (body, statuses) in broken_bodies() {
            let at = format!("{} with {:?}", operation.id, &body[..body.len().min(20)]);
            let head = format!("{token}Content-Length: {}\r\n", body.len());
            let answer = served.whole(method, &path, &head, &body).await;
            let status = is_refusal(&at, answer);
            assert!(statuses.contains(&status), "{at}: {status}");
            assert!(
                said["responses"][status.to_string()].is_object(),
                "{at}: {status}"
            );
        }
        for sort in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/xml",
            "",
        ] {
            let at = format!("{} as {sort:?}", operation.id);
            let head = format!("{token}Content-Type: {sort}\r\nContent-Length: 2\r\n");
            let answer = served.whole(method, &path, &head, b"{}").await;
            assert_eq!(is_refusal(&at, answer), 415, "{at}");
        }
        let schema = resolve(&document, json);
        assert_eq!(schema["additionalProperties"], false, "{}", operation.id);
        for name in schema["properties"].as_object().unwrap().keys() {
            for value in odd_values() {
                let body =
                    serde_json::to_vec(&serde_json::json!({ (name.as_str()): value })).unwrap();
                let shown: String = value.to_string().chars().take(60).collect();
                let at = format!("{} with {name} = {shown}", operation.id);
                let head = format!("{token}Content-Length: {}\r\n", body.len());
                let (status, head, body) = served.whole(method, &path, &head, &body).await;
                // What is odd for one field is good for another, whose route then finds nothing there.
                if status >= 300 {
                    is_refusal(&at, (status, head, body));
                }
            }
        }
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let (status, answer) = served.ask(method, &path, b"{}").await;
        if !required.is_empty() {
            assert_eq!(status, 422, "{}: {answer}", operation.id);
        }
    }
    assert!(looked_at >= 6, "{looked_at} routes take a body");
}

#[tokio::test]
async fn what_is_no_path_and_no_query_of_a_route_is_refused_with_the_error_object() {
    let served = Served::start().await;
    let document = document(&served);
    let token = format!(
        "Authorization: Bearer {}\r\nContent-Length: 0\r\n",
        served.token.as_str()
    );
    for operation in operations(&served) {
        let method = operation.method.as_str();
        let said = &document["paths"][operation.path][method.to_lowercase()];
        let parameters = said["parameters"].as_array().cloned().unwrap_or_default();
        for _ in openapi::names_of(operation.path).take(1) {
            for odd in [
                "%00",
                "%FF",
                "..",
                "%2F..%2F",
                "A_",
                &"x".repeat(4000),
                "%20",
            ] {
                let parts: Vec<&str> = openapi::names_of(operation.path).collect();
                let mut path = operation.path.to_owned();
                for part in parts {
                    path = path.replace(&format!("{{{part}}}"), odd);
                }
                let answer = served.whole(method, &path, &token, b"").await;
                let status = is_refusal(&format!("{method} {path}"), answer);
                assert!(
                    [400, 404, 422].contains(&status),
                    "{method} {path}: {status}"
                );
            }
        }
        let queried = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query");
        let mut names: Vec<&str> = queried.map(|it| it["name"].as_str().unwrap()).collect();
        if names.is_empty() {
            continue;
        }
        names.push("no-such-parameter");
        for name in names {
            for odd in ["%00", "-1", "%FF", "1e9", "%7B%7D", &"9".repeat(400)] {
                let path = format!("{}?{name}={odd}", path_of(&operation));
                let (status, head, body) = served.whole(method, &path, &token, b"").await;
                if status >= 300 {
                    let status = is_refusal(&path, (status, head, body));
                    assert!([404, 422].contains(&status), "{path}: {status}");
                }
            }
        }
        let path = format!("{}?no-such-parameter=1", path_of(&operation));
        assert_eq!(
            served.raw(method, &path, &token, b"").await.0,
            422,
            "{path}"
        );
    }
}

#[tokio::test]
async fn bounds_in_the_document_are_those_that_are_kept() {
    let served = Served::start().await;
    let document = document(&served);
    let schemas = &document["components"]["schemas"];
    let field = |of: &str, name: &str| schemas[of]["properties"][name].clone();
    assert_eq!(
        field("MissingArtifacts", "digests")["maxItems"],
        sluice_api::MISSING_DIGESTS_MAX
    );
    let jobs = field("RunLaunch", "jobs");
    assert_eq!(jobs["minItems"], 1);
    assert_eq!(jobs["maxItems"], sluice_api::RUN_JOBS_MAX);
    assert_eq!(field("TokenCreate", "ttl_ms")["minimum"], 1);
    assert_eq!(
        field("TokenCreate", "name")["maxLength"],
        sluice_api::TOKEN_NAME_BYTES_MAX
    );
    assert_eq!(
        field("DeployRequest", "pipeline")["maxLength"],
        sluice_model::pipeline::PIPELINE_BYTES_MAX
    );
    let labels = field("NodeLabels", "set");
    assert!(labels["propertyNames"]["pattern"].is_string(), "{labels}");

    let token = format!(
        "Authorization: Bearer {}\r\nContent-Length: 0\r\n",
        served.token.as_str()
    );
    let mut looked_at = 0;
    for operation in operations(&served) {
        let method = operation.method.as_str();
        let said = &document["paths"][operation.path][method.to_lowercase()];
        let parameters = said["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in parameters.iter().filter(|it| it["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let schema = resolve(&document, &parameter["schema"]);
            if name == "tail" {
                assert_eq!(schema["maximum"], sluice_api::LOG_TAIL_MAX);
            }
            if schema["format"] != "int64" {
                continue;
            }
            looked_at += 1;
            for (value, is_fit) in [
                ("9223372036854775807", true),
                ("9223372036854775808", false),
                ("-1", false),
            ] {
                let path = format!("{}?{name}={value}", path_of(&operation));
                let answer = served.whole(method, &path, &token, b"").await;
                if is_fit {
                    assert!([200, 404].contains(&answer.0), "{path}: {}", answer.2);
                } else {
                    assert_eq!(is_refusal(&path, answer), 422, "{path}");
                }
            }
        }
    }
    assert!(looked_at >= 3, "{looked_at} parameters count something");
}

#[tokio::test]
async fn a_condition_that_is_not_understood_is_refused_and_nothing_is_done() {
    let served = Served::start().await;
    let document = document(&served);
    let token = format!("Authorization: Bearer {}\r\n", served.token.as_str());
    let mut looked_at = 0;
    for operation in operations(&served) {
        if !operation.conditional {
            continue;
        }
        looked_at += 1;
        let method = operation.method.as_str();
        let said = &document["paths"][operation.path][method.to_lowercase()];
        assert!(said["responses"]["412"].is_object(), "{}", operation.id);
        for condition in [
            "If-Match: without-quotes",
            "If-Match: \"a\", b",
            "If-Match: \u{e9}",
            "If-None-Match: \"a\"",
        ] {
            let at = format!("{} with {condition}", operation.id);
            let head = format!("{token}{condition}\r\nContent-Length: 0\r\n");
            let answer = served.whole(method, &path_of(&operation), &head, b"").await;
            assert_eq!(is_refusal(&at, answer), 422, "{at}");
        }
    }
    assert!(looked_at >= 10, "{looked_at} operations are conditional");
    assert_eq!(served.control.asked(), [""; 0]);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_told_those_that_it_does() {
    let served = Served::start().await;
    let token = format!(
        "Authorization: Bearer {}\r\nContent-Length: 0\r\n",
        served.token.as_str()
    );
    let mut taken: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let all = operations(&served);
    for operation in &all {
        let methods = taken.entry(operation.path).or_default();
        methods.push(operation.method.as_str().to_owned());
    }
    for operation in &all {
        let methods = &taken[operation.path];
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            if methods.iter().any(|taken| taken == method) {
                continue;
            }
            let at = format!("{method} {}", operation.path);
            let (status, head, body) = served.whole(method, &path_of(operation), &token, b"").await;
            let allow = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("allow"))
                .map(|(_, value)| value.to_owned())
                .unwrap_or_default();
            assert_eq!(is_refusal(&at, (status, head, body)), 405, "{at}");
            for method in methods {
                assert!(allow.contains(method), "{at}: Allow: {allow}");
            }
        }
    }
}

#[tokio::test]
async fn a_page_names_the_next_one_with_all_that_was_asked() {
    let served = Served::start().await;
    let token = format!(
        "Authorization: Bearer {}\r\nContent-Length: 0\r\n",
        served.token.as_str()
    );
    let path = "/v1/nodes?limit=1&cursor=6530&state=lost";
    let (status, head, body) = served.whole("GET", path, &token, b"").await;
    assert_eq!((status, body.as_str()), (200, "[]"));
    let cursor = sluice_api::Cursor::of(&["e1"]);
    let link = format!("link: </v1/nodes?limit=1&state=lost&cursor={cursor}>; rel=\"next\"");
    assert!(head.to_ascii_lowercase().contains(&link), "{head}");
    let (_, head, _) = served.whole("GET", "/v1/nodes", &token, b"").await;
    assert!(!head.to_ascii_lowercase().contains("link:"), "{head}");
}
