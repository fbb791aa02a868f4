//! The two written forms of a connection string, to names and values.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::ConninfoError;

/// What is handed on to tokio-postgres as it stands.
pub(super) const HANDED_ON: [&str; 12] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// What is understood here.
pub(super) const OURS: [&str; 10] = [
    "dbname",
    "host",
    "hostaddr",
    "passfile",
    "password",
    "port",
    "ssl",
    "sslmode",
    "sslrootcert",
    "user",
];

/// Name → value; what was not given is not there.
pub(super) type Parameters = BTreeMap<&'static str, String>;

/// Reads either form. An empty value is none.
pub(super) fn parse(text: &str) -> Result<Parameters, ConninfoError> {
    let text = text.trim();
    let url = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    let pairs = match url {
        Some(url) => parse_url(url)?,
        None => parse_pairs(text)?,
    };
    let mut parameters = Parameters::new();
    for (index, (key, value)) in pairs.into_iter().enumerate() {
        let known = OURS
            .iter()
            .chain(&HANDED_ON)
            .find(|known| **known == key)
            .ok_or(ConninfoError::UnknownParameter { position: index + 1 })?;
        if !value.is_empty() {
            parameters.insert(known, value);
        }
    }
    // As JDBC writes it.
    if parameters.remove("ssl").is_some_and(|ssl| ssl == "true") {
        parameters.entry("sslmode").or_insert_with(|| "require".to_owned());
    }
    Ok(parameters)
}

/// `[user[:password]@][host[:port],…][/database][?key=value&…]`
fn parse_url(url: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let (before_query, query) = url.split_once('?').unwrap_or((url, ""));
    let (authority, database) = before_query.split_once('/').unwrap_or((before_query, ""));
    let (credentials, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));

    let mut names = Vec::new();
    let mut ports = Vec::new();
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(rest) => {
                let (name, port) = rest
                    .split_once(']')
                    .ok_or(ConninfoError::Syntax("an IPv6 address lacks its ]"))?;
                let port = match port.strip_prefix(':') {
                    None if !port.is_empty() => {
                        return Err(ConninfoError::Syntax("text after an IPv6 address"));
                    }
                    port => port.unwrap_or(""),
                };
                (name, port)
            }
            None => host.split_once(':').unwrap_or((host, "")),
        };
        names.push(decode(name)?);
        ports.push(decode(port)?);
    }
    let join = |list: &[String]| {
        let is_given = list.iter().any(|element| !element.is_empty());
        if is_given { list.join(",") } else { String::new() }
    };

    let mut pairs = vec![
        ("user".to_owned(), decode(user)?),
        ("password".to_owned(), decode(password)?),
        ("host".to_owned(), join(&names)),
        ("port".to_owned(), join(&ports)),
        ("dbname".to_owned(), decode(database)?),
    ];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or(ConninfoError::Syntax("a parameter without ="))?;
        pairs.push((decode(key)?, decode(value)?));
    }
    Ok(pairs)
}

fn decode(text: &str) -> Result<String, ConninfoError> {
    percent_decode_str(text)
        .decode_utf8()
        .map(|decoded| decoded.into_owned())
        .map_err(|_not_utf8| ConninfoError::Syntax("percent-encoded text is not UTF-8"))
}

/// `key = value` and `key = 'quoted value'`, `\` before a quote or itself.
fn parse_pairs(text: &str) -> Result<Vec<(String, String)>, ConninfoError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after_equals) = rest
            .split_once('=')
            .ok_or(ConninfoError::Syntax("a word without = after it"))?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(ConninfoError::Syntax("a word without = after it"));
        }
        let (value, after_value) = parse_value(after_equals.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after_value.trim_start();
    }
    Ok(pairs)
}

/// The value at the start of the text, and the text after it.
fn parse_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let (is_quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, &body[index + 1..])),
            _ if !is_quoted && character.is_whitespace() => return Ok((value, &body[index..])),
            _ => value.push(character),
        }
    }
    if is_quoted {
        return Err(ConninfoError::Syntax("a quoted value lacks its end"));
    }
    Ok((value, ""))
}
