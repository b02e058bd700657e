//! Microsoft Graph: group membership and account state, for what tokens do not say.
//!
//! Every URL is made here, from the configured base and a verified object id; none is taken from a token or an answer.
//! Whatever is not a clear answer is a failure, and the login is refused as undecided (`groups`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use verbatim_core::Timestamp;

use crate::cache::Bounded;
use crate::claims::Collection;
use crate::fetch::{self, Answer, FetchError};
use crate::json::{Json, Object};
use crate::settings::{Graph, SettingsError};
use crate::source::{Net, Source};
use crate::token::guid;

/// How long an answer is used.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(300);
/// How long "no such object" is believed: a new one takes a while to be seen everywhere.
const GONE_AGE_MAX: Duration = Duration::from_secs(30);
/// How long a failure stands for the next ones, so that a crowd at the door does not wait in line for a dead service.
const FAILURE_AGE_MAX: Duration = Duration::from_secs(5);
/// How many subjects' answers are kept.
const ANSWERS_MAX: usize = 20_000;
/// The most groups that are asked for one by one; above, the whole list costs less.
const CHECKED_MAX: usize = 40;
/// The most ids that one `checkMemberGroups` takes.
const BATCH_MAX: usize = 20;
/// How often a throttled or failed call is tried again.
const RETRIES_MAX: u32 = 3;
/// How long before its end a token of ours is not used any more.
const TOKEN_MARGIN: Duration = Duration::from_secs(300);

/// Why the directory gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// It knows no such object.
    Gone,
    /// The account is disabled.
    Disabled,
    /// It did not let us ask.
    Denied(String),
    /// It could not be reached, or not in time.
    Unavailable(String),
}

/// Whom a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    pub(crate) tenant: String,
    pub(crate) collection: Collection,
    pub(crate) id: String,
}

/// The groups of a subject and when they were learnt.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) groups: Arc<HashSet<String>>,
    pub(crate) at: Timestamp,
}

#[derive(Debug, Clone)]
struct Remembered {
    result: Result<Found, NoAnswer>,
    until: Duration,
}

/// One subject's place: whoever holds the lock asks, the others wait for the same answer.
#[derive(Debug, Default)]
struct Slot {
    asked: AtomicU64,
    answer: tokio::sync::Mutex<Option<Remembered>>,
}

#[derive(Debug, Clone)]
struct OwnToken {
    token: SecretString,
    until: Duration,
}

/// The directory of every tenant.
#[derive(Debug)]
pub(crate) struct Directory {
    net: Arc<Net>,
    base: Url,
    scope: String,
    client_id: String,
    client_secret: SecretString,
    budget: Duration,
    tokens: tokio::sync::Mutex<HashMap<String, OwnToken>>,
    answers: Mutex<Bounded<Subject, Arc<Slot>>>,
}

impl Directory {
    pub(crate) fn new(
        net: Arc<Net>,
        settings: &Graph,
        default_base: &str,
        budget: Duration,
    ) -> Result<Self, SettingsError> {
        let text = settings.endpoint.as_deref().unwrap_or(default_base).trim_end_matches('/');
        let base = fetch::checked_url(text)?;
        if base.query().is_some() {
            return Err(SettingsError::Url { url: text.to_owned(), problem: "a query means nothing here" });
        }
        Ok(Self {
            scope: format!("{}/.default", base.origin().ascii_serialization()),
            net,
            base,
            client_id: settings.client_id.clone(),
            client_secret: settings.client_secret.clone(),
            budget,
            tokens: tokio::sync::Mutex::new(HashMap::new()),
            answers: Mutex::new(Bounded::new(ANSWERS_MAX)),
        })
    }

    /// Which of these groups the subject is in, directly or through others. `anew`: asked after this call began.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing remembered; whoever waited for it asks in its place.
    pub(crate) async fn groups(
        &self,
        source: &Source,
        subject: &Subject,
        asked_for: &[String],
        anew: bool,
    ) -> Result<Found, NoAnswer> {
        let slot = self.slot(subject);
        let seen = slot.asked.load(Ordering::Acquire);
        let mut answer = slot.answer.lock().await;
        if let Some(remembered) = &*answer {
            let younger = !anew || slot.asked.load(Ordering::Acquire) != seen;
            if younger && self.net.clock.elapsed() < remembered.until {
                return remembered.result.clone();
            }
        }
        let result = match tokio::time::timeout(self.budget, self.ask(source, subject, asked_for)).await {
            Ok(result) => result,
            Err(_) => Err(NoAnswer::Unavailable(String::from("no answer within the budget"))),
        };
        let keep = match &result {
            Ok(_) => ANSWER_AGE_MAX,
            Err(NoAnswer::Gone | NoAnswer::Disabled) => GONE_AGE_MAX,
            Err(NoAnswer::Denied(_) | NoAnswer::Unavailable(_)) => FAILURE_AGE_MAX,
        };
        let result = result.map(|groups| Found { groups: Arc::new(groups), at: self.net.clock.now() });
        *answer = Some(Remembered { result: result.clone(), until: self.net.clock.elapsed() + keep });
        slot.asked.fetch_add(1, Ordering::Release);
        result
    }

    fn slot(&self, subject: &Subject) -> Arc<Slot> {
        let mut answers = self.answers.lock();
        answers.get(subject).unwrap_or_else(|| {
            let slot = Arc::new(Slot::default());
            answers.insert(subject.clone(), Arc::clone(&slot));
            slot
        })
    }

    async fn ask(
        &self,
        source: &Source,
        subject: &Subject,
        asked_for: &[String],
    ) -> Result<HashSet<String>, NoAnswer> {
        if asked_for.len() > CHECKED_MAX {
            let body = serde_json::json!({ "securityEnabledOnly": true });
            let path = [subject.collection.path(), &subject.id, "getMemberGroups"];
            let answer = self.call(source, &subject.tenant, Method::POST, &path, Some(&body)).await?;
            if answer.status == StatusCode::OK {
                return ids(&answer);
            }
            // Too many to list: they can still be asked for.
            if code(&answer).as_deref() != Some("Directory_ResultSizeLimitExceeded") {
                return Err(refused(&answer));
            }
        }
        let mut found = HashSet::new();
        for batch in asked_for.chunks(BATCH_MAX) {
            let body = serde_json::json!({ "groupIds": batch });
            let path = [subject.collection.path(), &subject.id, "checkMemberGroups"];
            let answer = self.call(source, &subject.tenant, Method::POST, &path, Some(&body)).await?;
            if answer.status != StatusCode::OK {
                return Err(refused(&answer));
            }
            found.extend(ids(&answer)?.into_iter().filter(|id| batch.contains(id)));
        }
        Ok(found)
    }

    /// Whether the account may be used.
    pub(crate) async fn enabled(&self, source: &Source, subject: &Subject) -> Result<(), NoAnswer> {
        let asking = async {
            let path = [subject.collection.path(), &subject.id];
            let answer = self.call(source, &subject.tenant, Method::GET, &path, None).await?;
            if answer.status != StatusCode::OK {
                return Err(refused(&answer));
            }
            match Object::parse(&answer.body).as_ref().and_then(|object| object.get("accountEnabled")) {
                Some(Json::Bool(true)) => Ok(()),
                Some(Json::Bool(false)) => Err(NoAnswer::Disabled),
                _ => Err(NoAnswer::Unavailable(String::from("Graph says nothing of accountEnabled"))),
            }
        };
        let late = || Err(NoAnswer::Unavailable(String::from("no answer within the budget")));
        tokio::time::timeout(self.budget, asking).await.unwrap_or_else(|_| late())
    }

    /// A group's display name, for checks.
    pub(crate) async fn group_name(
        &self,
        source: &Source,
        tenant: &str,
        id: &str,
    ) -> Result<String, NoAnswer> {
        let answer = self.call(source, tenant, Method::GET, &["groups", id], None).await?;
        if answer.status != StatusCode::OK {
            return Err(refused(&answer));
        }
        let name = Object::parse(&answer.body).and_then(|group| group.text("displayName").map(str::to_owned));
        Ok(name.unwrap_or_default())
    }

    /// One call, with our token, and again where Graph asks for patience. The caller bounds the time.
    async fn call(
        &self,
        source: &Source,
        tenant: &str,
        method: Method,
        path: &[&str],
        body: Option<&serde_json::Value>,
    ) -> Result<Answer, NoAnswer> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        match path {
            ["groups", _] => url.set_query(Some("$select=id,displayName")),
            [_, _] => url.set_query(Some("$select=accountEnabled")),
            _ => {}
        }
        let mut token_renewed = false;
        let mut tries = 0;
        loop {
            let token = self.token(source, tenant).await?;
            self.net.metrics.graph_calls.count();
            let mut request =
                self.net.fetcher.request(method.clone(), &url).bearer_auth(token.expose_secret());
            if let Some(body) = body {
                request = request.json(body);
            }
            let (answer, pause) = match self.net.fetcher.send(request).await {
                Ok(answer) => {
                    let pause = pause(&answer, tries);
                    (Ok(answer), pause)
                }
                Err(error) => (Err(unavailable(&error)), Some(Duration::from_millis(100))),
            };
            if let Ok(answer) = &answer
                && answer.status == StatusCode::UNAUTHORIZED
                && !token_renewed
            {
                token_renewed = true;
                self.tokens.lock().await.remove(tenant);
                continue;
            }
            tries += 1;
            match pause {
                // Waiting past the budget helps nobody.
                Some(pause) if tries < RETRIES_MAX && pause < self.budget => tokio::time::sleep(pause).await,
                _ => return answer,
            }
        }
    }

    /// Our own token for Graph, by client credentials at the tenant's token endpoint.
    pub(crate) async fn token(&self, source: &Source, tenant: &str) -> Result<SecretString, NoAnswer> {
        let mut tokens = self.tokens.lock().await;
        if let Some(own) = tokens.get(tenant).filter(|own| self.net.clock.elapsed() < own.until) {
            return Ok(own.token.clone());
        }
        let endpoint = source.token_endpoint().await.map_err(|error| unavailable(&error))?;
        self.net.metrics.graph_tokens.count();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose_secret()),
            ("scope", &self.scope),
        ];
        let request = self.net.fetcher.request(Method::POST, &endpoint).form(&form);
        let answer = self.net.fetcher.send(request).await.map_err(|error| unavailable(&error))?;
        let body = Object::parse(&answer.body);
        let text = |name: &str| body.as_ref().and_then(|body| body.text(name));
        match (answer.status, text("access_token")) {
            (StatusCode::OK, Some(token)) => {
                let seconds = match body.as_ref().and_then(|body| body.get("expires_in")) {
                    Some(Json::Integer(seconds)) => u64::try_from(*seconds).unwrap_or(0),
                    Some(Json::Text(seconds)) => seconds.parse().unwrap_or(0),
                    _ => 0,
                };
                let life = Duration::from_secs(seconds).saturating_sub(TOKEN_MARGIN);
                let own =
                    OwnToken { token: token.into(), until: self.net.clock.elapsed().saturating_add(life) };
                tokens.insert(tenant.to_owned(), own.clone());
                Ok(own.token)
            }
            (status, _) => {
                // The code alone: a description can quote what was sent.
                let code = crate::refusal::quoted(text("error").unwrap_or("no code"));
                let reason = format!("no token for Graph: status {}, {code}", status.as_u16());
                let ours = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
                Err(if ours { NoAnswer::Denied(reason) } else { NoAnswer::Unavailable(reason) })
            }
        }
    }
}

impl Collection {
    const fn path(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::ServicePrincipals => "servicePrincipals",
        }
    }
}

/// How long to wait before the same call may succeed, if it may.
fn pause(answer: &Answer, tries: u32) -> Option<Duration> {
    let own = Duration::from_millis(200) * 2_u32.saturating_pow(tries.min(8));
    match answer.status.as_u16() {
        429 | 503 => Some(answer.retry_after().unwrap_or(own)),
        500 | 502 | 504 => Some(own),
        _ => None,
    }
}

fn ids(answer: &Answer) -> Result<HashSet<String>, NoAnswer> {
    let broken = |what: &str| NoAnswer::Unavailable(format!("Graph's answer {what}"));
    let body = Object::parse(&answer.body).ok_or_else(|| broken("is no JSON object"))?;
    if body.get("@odata.nextLink").is_some() {
        // These calls do not page; half a list would be taken for the whole.
        return Err(broken("is only a part"));
    }
    let list = body.get("value").and_then(Json::as_texts).ok_or_else(|| broken("holds no list of ids"))?;
    Ok(list.into_iter().filter_map(guid).collect())
}

fn code(answer: &Answer) -> Option<String> {
    let body = Object::parse(&answer.body)?;
    body.get("error")?.as_object()?.text("code").map(str::to_owned)
}

fn refused(answer: &Answer) -> NoAnswer {
    let code = code(answer).unwrap_or_default();
    let reason =
        format!("Graph answered with status {} {}", answer.status.as_u16(), crate::refusal::quoted(&code));
    match answer.status {
        StatusCode::NOT_FOUND => NoAnswer::Gone,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            // Nobody gets in through groups until someone grants the permission.
            tracing::warn!(%reason, "Graph does not let the gateway ask: check its permissions and their consent");
            NoAnswer::Denied(reason)
        }
        _ => NoAnswer::Unavailable(reason),
    }
}

fn unavailable(error: &FetchError) -> NoAnswer {
    NoAnswer::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer { status: StatusCode::OK, headers: Default::default(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn half_a_list_is_no_list() {
        let id = "e7e7e7e7-0000-4000-8000-00000000e001";
        let whole = ids(&answer(&format!(r#"{{"value":["{}","a name"]}}"#, id.to_uppercase()))).unwrap();
        assert_eq!(whole, HashSet::from([id.to_owned()]));
        for wrong in [
            r#"{"value":[],"@odata.nextLink":"https://elsewhere.invalid/"}"#,
            r#"{"value":[7]}"#,
            r#"{"value":"x"}"#,
            "{}",
            "[]",
            "",
        ] {
            assert!(matches!(ids(&answer(wrong)), Err(NoAnswer::Unavailable(_))), "{wrong}");
        }
    }
}
