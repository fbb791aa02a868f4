//! Tests of loading as a whole.

use std::fs;
use std::time::Duration;

use super::*;
use crate::config::LogFormat;

fn load(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_sources(yaml, variables, Service::Indexer)
}

/// The least that is needed, and more.
fn yaml(more: &str) -> String {
    format!("database: {{postgres: {{url: 'postgres://u@h/d'}}}}\n{more}")
}

fn lines(result: Result<Config, ConfigErrors>) -> Vec<String> {
    let errors = result.unwrap_err().to_string();
    errors.lines().map(str::to_owned).collect()
}

const URL: &str = "registry: {url: 'https://r.example'}\n";

#[test]
fn fills_everything_with_defaults() {
    let config = load(&yaml(URL), &[]).unwrap();
    assert_eq!(config.registry.url.as_str(), "https://r.example/");
    assert_eq!(config.registry.public_url, "https://r.example/");
    assert!(config.registry.credentials.is_none());
    assert!(config.registry.catalog);
    assert_eq!(config.registry.timeout, Duration::from_secs(30));
    assert_eq!(config.registry.concurrency, 32);
    assert!(config.registry.repositories.allows(&"a/b".parse().unwrap()));
    assert!(config.components.web_ui);
    assert!(!config.components.assert_endpoint);
    assert!(config.events.token.is_none());
    assert_eq!(config.database.postgres.pool_size, 8);
    assert_eq!(config.database.statement_timeout, Duration::from_secs(2));
    assert!(config.database.migrate_on_start);
    assert_eq!(config.cache.max_age_index, Duration::from_secs(5));
    assert_eq!(config.cache.max_age_html, Duration::from_secs(5));
    assert_eq!(config.cache.stale_while_revalidate, Duration::from_secs(30));
    assert_eq!(config.cache.stale_if_error, Duration::from_secs(86_400));
    assert_eq!(config.cache.memory, 64 * 1024 * 1024);
    assert_eq!(config.interval.fetch_all, Some(Duration::from_secs(3600)));
    assert_eq!(config.interval.garbage_collect, Some(Duration::from_secs(1800)));
    assert_eq!(config.history.keep, Duration::from_secs(90 * 86_400));
    assert_eq!(config.limits, crate::config::Limits::default());
    assert_eq!(config.listen.query_api, "0.0.0.0:8088".parse().unwrap());
    assert_eq!(config.listen.indexer_admin, "0.0.0.0:9089".parse().unwrap());
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.log.level, "info");
}

#[test]
fn lets_the_environment_win_over_the_file_and_the_file_over_defaults() {
    let file = yaml("registry: {url: 'https://file.example', concurrency: 5, timeout: 7s}");
    let config = load(
        &file,
        &[
            ("FLAGSTATE_REGISTRY__URL", "http://env.example"),
            ("FLAGSTATE_REGISTRY__CONCURRENCY", "6"),
            ("FLAGSTATE_REGISTRY__CATALOG", "false"),
            ("FLAGSTATE_DATABASE__POSTGRES__POOL_SIZE", "3"),
            ("FLAGSTATE_CACHE__MEMORY", "1GB"),
            ("FLAGSTATE_LIMITS__MANIFEST", "1024"),
            ("FLAGSTATE_LOG__FORMAT", "text"),
            ("FLAGSTATE_INTERVAL__FETCH_ALL", "0"),
        ],
    )
    .unwrap();
    assert_eq!(config.registry.url.as_str(), "http://env.example/");
    assert_eq!(config.registry.concurrency, 6);
    assert!(!config.registry.catalog);
    assert_eq!(config.registry.timeout, Duration::from_secs(7));
    assert_eq!(config.database.postgres.pool_size, 3);
    assert_eq!(config.cache.memory, 1_000_000_000);
    assert_eq!(config.limits.manifest, 1024);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.interval.fetch_all, None);
}

#[test]
fn keeps_environment_values_as_the_text_that_they_are() {
    for token in ["0123", "1e5", "true", "null", "[a]", "{a: b}", " x ", "~"] {
        let config = load(&yaml(URL), &[("FLAGSTATE_EVENTS__TOKEN", token)]).unwrap();
        assert_eq!(&*config.events.token.unwrap().expose(), token);
    }
}

#[test]
fn reads_lists_from_the_environment() {
    let name = |text: &str| text.parse().unwrap();
    for value in ["apps/**, base", "['apps/**', base]"] {
        let config = load(&yaml(URL), &[("FLAGSTATE_REGISTRY__REPOSITORIES__INCLUDE", value)]).unwrap();
        let filter = config.registry.repositories;
        assert!(filter.allows(&name("apps/a")) && filter.allows(&name("base")));
        assert!(!filter.allows(&name("other")));
    }
}

#[test]
fn ignores_variables_that_orchestrators_make_for_services() {
    load(
        &yaml(URL),
        &[
            ("FLAGSTATE_QUERY_API_PORT", "tcp://10.0.0.1:8088"),
            ("FLAGSTATE_SERVICE_HOST", "10.0.0.1"),
            ("OTHER__KEY", "x"),
        ],
    )
    .unwrap();
}

#[test]
fn reports_every_fault_at_once_with_its_key_and_source() {
    let file = "
registry:
  ulr: https://r.example
  timeout: 5 minutes
  concurrency: many
  username: u
events: {token: 12345, colour: red}
databse: {}
cache: {max_age_index: -5s, memory: 64M}
interval: 3
log: {format: xml}
";
    let faults = lines(load(
        file,
        &[
            ("FLAGSTATE_LISTEN__INDEXER", "8089"),
            ("FLAGSTATE_REGISTRY__CATALOGUE", "false"),
            ("PGUSER", "u"),
        ],
    ));
    let text = "(from the configuration text)";
    for expected in [
        format!("registry.ulr: unknown key, the nearest known one is registry.url {text}"),
        format!("registry.timeout: \"5 minutes\" is no duration; write for example 30s, 1h30m or 7d {text}"),
        format!("registry.concurrency: is a text, expected a whole number {text}"),
        "registry.catalogue: unknown key, the nearest known one is registry.catalog \
         (from environment variable FLAGSTATE_REGISTRY__CATALOGUE)"
            .to_owned(),
        "registry.url: is required; give it in the file or as FLAGSTATE_REGISTRY__URL".to_owned(),
        format!("registry.username: needs registry.password too {text}"),
        format!("events.token: is a number, expected a text (put it in quotes) {text}"),
        format!("events.colour: unknown key, the nearest known one is events.token {text}"),
        format!("databse: unknown key, the nearest known one is database {text}"),
        format!("cache.max_age_index: \"-5s\" is negative {text}"),
        format!("cache.memory: \"64M\" is no size; write for example 512KiB, 64MiB, 1GB or a number of bytes {text}"),
        format!("interval: is a number, expected a section with keys of its own {text}"),
        format!("log.format: \"xml\" is not one of json, text {text}"),
        "listen.indexer: \"8089\" is not an address such as 0.0.0.0:8088 or [::]:8088 \
         (from environment variable FLAGSTATE_LISTEN__INDEXER)"
            .to_owned(),
    ] {
        assert!(faults.contains(&expected), "{expected}\nis not in\n{faults:#?}");
    }
    assert_eq!(faults.len(), 14, "{faults:#?}");
}

#[test]
fn refuses_contradictions_and_senseless_values() {
    for (file, expected) in [
        ("registry: {url: 'ftp://r'}", "registry.url: is not an http"),
        ("registry: {url: r.example}", "registry.url: is not an http"),
        ("registry: {url: 'https://u:p@r'}", "registry.url: must be without user"),
        (
            "registry: {url: 'https://r/?a=b'}",
            "registry.url: must be without user",
        ),
        ("registry: {url: 'https://r/v2/'}", "registry.url: must be without /v2"),
        (
            "registry: {url: 'https://r', public_url: 'ftp://x'}",
            "registry.public_url: is neither",
        ),
        (
            "registry: {url: 'https://r', public_url: 'a b'}",
            "registry.public_url: is neither",
        ),
        (
            "registry: {url: 'https://r', password: p}",
            "registry.password: needs registry.username",
        ),
        (
            "registry: {url: 'https://r', username: u}",
            "registry.username: needs registry.password",
        ),
        (
            "registry: {url: 'https://r', username: u, password: p, password_file: f}",
            "registry.password: and registry.password_file exclude each other",
        ),
        (
            "registry: {url: 'https://r', client_key_file: k}",
            "registry.client_key_file: needs registry.client_certificate_file",
        ),
        (
            "registry: {url: 'https://r', client_certificate_file: c}",
            "registry.client_certificate_file: needs registry.client_key_file",
        ),
        (
            "registry: {url: 'https://r', timeout: 0}",
            "registry.timeout: must be more than 0",
        ),
        (
            "registry: {url: 'https://r', timeout: 30}",
            "registry.timeout: \"30\" has a number without a unit",
        ),
        (
            "registry: {url: 'https://r', concurrency: 0}",
            "registry.concurrency: must be more than 0",
        ),
        (
            "registry: {url: 'https://r', concurrency: -1}",
            "registry.concurrency: is a negative number",
        ),
        (
            "registry: {url: 'https://r', token_realms: ['https://auth']}",
            "registry.token_realms: \"https://auth\" is not a host",
        ),
        (
            "registry: {url: 'https://r', token_realms: [1]}",
            "registry.token_realms.0: is a number",
        ),
        (
            "registry: {url: 'https://r', repositories: {include: []}}",
            "registry.repositories.include: must not be empty",
        ),
        (
            "registry: {url: 'https://r', repositories: {exclude: ['A*']}}",
            "registry.repositories.exclude: \"A*\" holds 'A'",
        ),
        (
            "registry: {url: 'https://r'}\nevents: {previous_token: t}",
            "events.previous_token: needs events.token",
        ),
        (
            "registry: {url: 'https://r'}\nevents: {token: t, token_file: f}",
            "events.token: and events.token_file",
        ),
        (
            "registry: {url: 'https://r'}\nlimits: {json_depth: 129}",
            "limits.json_depth: must be at most 128",
        ),
        (
            "registry: {url: 'https://r'}\nlimits: {page_size: 0}",
            "limits.page_size: must be more than 0",
        ),
        (
            "registry: {url: 'https://r'}\nlimits: {manifests: 1}",
            "limits.manifests: unknown key, the nearest known one is limits.manifest ",
        ),
        (
            "registry: {url: 'https://r'}\nlisten: {indexer_admin: '0.0.0.0:8089'}",
            "listen.indexer_admin: is the same address as listen.indexer",
        ),
        (
            "registry: {url: 'https://r'}\nlog: {level: loud}",
            "log.level: is neither a level",
        ),
        (
            "registry: {url: 'https://r'}\nkeep: 1d",
            "keep: unknown key, the nearest known one is history.keep",
        ),
        (
            "registry: {url: 'https://r'}\nregistry: {}",
            "the configuration text: is not YAML: duplicate entry",
        ),
        ("registry: [", "the configuration text: is not YAML"),
        ("- a", "the configuration text: is not a mapping of sections"),
    ] {
        let faults = lines(load(file, &[("PGUSER", "u")]));
        assert!(
            faults.iter().any(|fault| fault.starts_with(expected)),
            "{expected}\nis not in\n{faults:#?}"
        );
    }
}

#[test]
fn never_prints_a_secret() {
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("database: {postgres: 'postgres://u:hunter2@h/d'}", &[]),
        ("database: {postgres: {url: 'postgres://u:hunter2@h/d?sslmode=x'}}", &[]),
        ("registry: {url: 'https://u:hunter2@r'}", &[]),
        ("events: {token: [hunter2]}\nregistry: hunter2", &[]),
        ("", &[("HTTPS_PROXY", "socks://u:hunter2@proxy")]),
        ("", &[("FLAGSTATE_EVENTS__TOKEN__X", "hunter2")]),
    ];
    for (file, variables) in cases {
        let errors = load(file, variables).unwrap_err();
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
    }
    let config = load(
        "registry: {url: 'https://r', username: u, password: hunter2}
events: {token: hunter2, previous_token: hunter2}
database: {postgres: {url: 'postgres://u:hunter2@h/d'}}",
        &[("PGPASSWORD", "hunter2"), ("HTTPS_PROXY", "http://u:hunter2@proxy")],
    )
    .unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn treats_a_key_without_a_value_as_not_given() {
    let config = load(
        &yaml("registry:\n  url: https://r\n  username:\nlimits:\ncache:\n  memory:\n"),
        &[],
    );
    assert_eq!(config.unwrap().cache.memory, 64 * 1024 * 1024);
}

#[test]
fn opens_events_for_an_empty_token() {
    let config = load(&yaml(&format!("{URL}events: {{token: ''}}")), &[]).unwrap();
    assert!(config.events.token.is_none());
}

#[test]
fn reads_secrets_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let yaml = format!(
        "registry: {{url: 'https://r', username: u, password_file: {}}}
events: {{token_file: {}, previous_token_file: {}}}
database: {{postgres: {{url_file: {}}}}}",
        file("password", "p\n"),
        file("token", "t\n"),
        file("previous", "q\n"),
        file("url", "postgres://u@h/d\n"),
    );
    let config = load(&yaml, &[]).unwrap();
    let credentials = config.registry.credentials.unwrap();
    assert_eq!(&*credentials.password.expose(), "p");
    assert_eq!(&*config.events.token.unwrap().expose(), "t");
    assert_eq!(&*config.events.previous_token.unwrap().expose(), "q");
    let url = &config.database.postgres.url;
    assert_eq!(&*url.expose(), "postgres://u@h/d");
    file("url", "postgres://u@h2/d\n");
    assert_eq!(&*url.expose(), "postgres://u@h2/d");
}

#[test]
fn refuses_missing_and_empty_secret_files() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    let faults = lines(load(
        &yaml(URL),
        &[
            ("FLAGSTATE_EVENTS__TOKEN_FILE", &empty.display().to_string()),
            ("FLAGSTATE_EVENTS__PREVIOUS_TOKEN_FILE", "/nonexistent/file"),
        ],
    ));
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(faults[0].starts_with("events.token_file: ") && faults[0].contains("is empty"));
    assert!(faults[1].starts_with("events.previous_token_file: cannot read /nonexistent/file"));
}

#[test]
fn keeps_the_indexers_secrets_from_query_api() {
    let yaml = yaml(
        "registry: {url: 'https://r', username: u, password_file: /nonexistent/a}
events: {token_file: /nonexistent/b}",
    );
    let config = Config::from_sources(&yaml, [], Service::QueryApi).unwrap();
    assert!(config.registry.credentials.is_none());
    assert!(config.events.token.is_none());
}

#[test]
fn obeys_the_proxy_variables() {
    let proxy = |variables: &[(&str, &str)]| {
        let config = load(&yaml(URL), variables).unwrap();
        let proxy = config.registry.https_proxy.map(|proxy| proxy.expose().to_string());
        (proxy, config.registry.no_proxy)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(proxy(&[]), (None, None));
    assert_eq!(proxy(&[("HTTPS_PROXY", "")]), (None, None));
    assert_eq!(
        proxy(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "a,b")]),
        (some("http://p:1"), some("a,b"))
    );
    assert_eq!(
        proxy(&[("https_proxy", "p:1"), ("no_proxy", "a")]),
        (some("http://p:1"), some("a"))
    );
}

#[test]
fn normalises_token_realms() {
    let yaml = yaml("registry: {url: 'https://r', token_realms: [Auth.Example, 'a:443', '[::1]:5000']}");
    let config = load(&yaml, &[]).unwrap();
    assert_eq!(config.registry.token_realms, ["auth.example", "a:443", "[::1]:5000"]);
}

#[test]
fn refuses_a_named_file_that_is_missing() {
    let errors = Config::load(Some(Path::new("/nonexistent/config.yaml")), Service::Indexer)
        .unwrap_err()
        .to_string();
    assert!(
        errors.starts_with("/nonexistent/config.yaml: cannot be read: "),
        "{errors}"
    );
}

#[test]
fn refuses_variables_that_contradict_each_other() {
    let faults = lines(load(
        &yaml(""),
        &[
            ("FLAGSTATE_REGISTRY__URL", "https://r"),
            ("FLAGSTATE_REGISTRY__URL__HOST", "r"),
            ("FLAGSTATE_registry__url", "https://r2"),
        ],
    ));
    assert!(
        faults
            .iter()
            .any(|fault| fault.contains("FLAGSTATE_REGISTRY__URL__HOST")),
        "{faults:#?}"
    );
}

/// Every key below a section with its default, as the documentation writes it.
fn documented_defaults() -> Vec<String> {
    fn walk(value: &Value, path: &str, rows: &mut Vec<String>) {
        let default = match value {
            Value::Dict(_, dict) => {
                for (key, inner) in dict {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(inner, &path, rows);
                }
                return;
            }
            Value::String(_, text) if text.is_empty() => "\"\"".to_owned(),
            Value::String(_, text) => text.clone(),
            Value::Bool(_, flag) => flag.to_string(),
            Value::Num(_, number) => number.to_u128().unwrap().to_string(),
            Value::Array(_, elements) => {
                let elements: Vec<_> = elements.iter().map(|element| element.as_str().unwrap()).collect();
                serde_json::to_string(&elements).unwrap()
            }
            Value::Char(..) | Value::Empty(..) => panic!("{path} has a default of an odd kind"),
        };
        let variable = crate::config::layer::variable_of(path);
        rows.push(format!("| `{path}` | `{default}` | `{variable}` |"));
    }
    let mut rows = Vec::new();
    walk(&Value::serialize(RawConfig::default()).unwrap(), "", &mut rows);
    rows.sort();
    rows
}

fn documentation() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    fs::read_to_string(path).unwrap()
}

#[test]
fn documents_every_key_with_its_default_and_variable() {
    let documentation = documentation();
    let mut documented: Vec<String> = documentation
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains("`FLAGSTATE_"))
        .map(|line| {
            let cells: Vec<&str> = line.splitn(5, " | ").collect();
            assert!(cells.len() == 4 && cells[3].len() > 10, "no meaning: {line}");
            format!("{} |", cells[..3].join(" | "))
        })
        .collect();
    documented.sort();
    assert_eq!(documented, documented_defaults());
}

#[test]
fn documents_an_example_that_loads() {
    let documentation = documentation();
    let (_, example) = documentation.split_once("```yaml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    // As query-api, which does not look for the example's secret files.
    let config = Config::from_sources(example, [], Service::QueryApi).unwrap();
    assert_eq!(config.interval.fetch_all, Some(Duration::from_secs(1800)));
}
