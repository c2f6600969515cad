//! The prose check: comments, documentation, messages and test names are plain technical English.
//!
//! `cargo test --test prose` reports each phrase that a rule of [`RULES`] rejects. Code, text in
//! backticks and text in double quotes are not checked. [`ALLOWED`] lists the exceptions.
//!
//! Why not a linter: vale needs a binary that no package registry carries, and proselint has no
//! rules of a project's own. Neither reads string literals and test names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// A pattern that prose must not contain.
struct Rule {
    name: &'static str,
    /// What to write instead.
    instead: &'static str,
    /// The pattern. Case is ignored. `^` is the start of a sentence.
    find: &'static str,
    /// A match that also matches this pattern is correct. Empty: no match is correct.
    unless: &'static str,
    /// A text with exactly one finding of this rule.
    bad: &'static str,
    /// A similar text without a finding.
    good: &'static str,
}

/// Files whose findings are correct: the path, the matched text and the reason.
const ALLOWED: &[(&str, &str, &str)] = &[];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule {
        name: "agent",
        instead: "name the agent: the kernel, the peer, the caller, the event loop, the process",
        find: r"\b(?:who(?:m|so)?ever|nobody|somebody|anybody|everybody|no one|someone|anyone|everyone)\b",
        unless: "",
        bad: "Nobody accepts the connection.",
        good: "No process accepts the connection.",
    },
    Rule {
        name: "agent",
        instead: "name the agent before `who`, or write `that`",
        find: r"(?:\w+,? )?\bwho\b",
        unless: r"^(?:users?|programmers?|engineers?|maintainers?|readers?|people|person|owner),? who$",
        bad: "It says who connected.",
        good: "A user who has no right to connect is rejected.",
    },
    Rule {
        name: "agent",
        instead: "name the noun: the connections, peers, bytes that ...",
        find: r"\b(?:those (?:that|who|which)|the other one(?:'s|s)?|another one(?:'s)?)\b",
        unless: "",
        bad: "The bytes and those that follow are sent.",
        good: "The size of this buffer and those of the rest are added.",
    },
    Rule {
        name: "agent",
        instead: "start with the noun, not with `those`",
        find: r"^those of ",
        unless: "",
        bad: "Those of a lookup are kept.",
        good: "The addresses of a lookup are kept.",
    },
    Rule {
        name: "tell/ask",
        instead: "return, report, log, notify, deliver / configure, request, query, call",
        find: r"\b(?:tell|tells|told|telling|ask|asks|asked|asking)\b",
        unless: "",
        bad: "The loop is told of the end.",
        good: "The loop is notified of the close.",
    },
    Rule {
        name: "archaic for",
        instead: "because",
        find: r"[,;] for (?:(?:it|they|he|there|nothing|neither|none) |(?:the|a|an|no|its|each|every|another|one|some|such|most|all|both|only|this|that|these|those) (?:[\w']+ ){1,3}?(?:is|are|was|were|has|have|had|may|can|cannot|could|must|will|would|does|do|did|need|needs)\b)",
        unless: r" (?:that|which|who|whose|whether) ",
        bad: "The error is kept, for the kernel has only one.",
        good: "The error is kept because the kernel has only one, for the caller.",
    },
    Rule {
        name: "archaic but",
        instead: "except, only, other than",
        find: r"\b(?:nothing|none|all|everything|anything|anywhere|nowhere|never) but\b|\b(?:no|any|every|all) (?:other )?\w+ but (?:the|a|an|one|this|that|its|those)\b",
        unless: "",
        bad: "Every socket but the first is closed.",
        good: "Every socket except the first is closed, but the first is kept.",
    },
    Rule {
        name: "archaic be",
        instead: "whether it is, even if it is",
        find: r"(?:[,;:] |^)be (?:it|they|the|there|this|that|he)\b|\bbe it\b|\bthough (?:there|it|they|the \w+) be\b|\bif need be\b",
        unless: "",
        bad: "A peer is detected, be the connection idle or not.",
        good: "A peer is detected whether the connection is idle or not. It may be the last.",
    },
    Rule {
        name: "archaic word",
        instead: "a current word: next to, in the meantime, so that, in it",
        find: r"\b(?:beside|meanwhile|thereby|therein|thereof|thereupon|thereafter|hereby|herein|wherein|whence|thence|whereby|whereupon|lest|albeit|ere|whilst|amongst|forthwith|for ever)\b",
        unless: "",
        bad: "The file is beside the socket.",
        good: "The file is next to the socket. Besides, it has a lock.",
    },
    Rule {
        name: "trailing too",
        instead: "also, before the verb",
        find: r",? too(?:[,.;:)?!]|$)",
        unless: "",
        bad: "The listener is closed, too.",
        good: "The listener is also closed, and the text is too long.",
    },
    Rule {
        name: "tail",
        instead: "put the limit first: `within`, `no later than`, `at most n`",
        find: r"\bat the (?:latest|earliest)\b|, (?:at most|at least|mostly|if at all|at that|once more)(?:[.;:]|$)",
        unless: "",
        bad: "It ends after 2 s, at most.",
        good: "It ends after at most 2 s.",
    },
    Rule {
        name: "coined",
        instead: "release (a descriptor), abandon (a peer), cancel (a timer), drop",
        find: r"\b(?:give|gives|given|giving|gave)(?: (?:it|them|one))? up\b",
        unless: "",
        bad: "The descriptor is given up.",
        good: "The descriptor is released. The given uplink works.",
    },
    Rule {
        name: "coined",
        instead: "adopt (a descriptor), replace (a file), inherit (from a predecessor)",
        find: r"\b(?:take|takes|taken|taking|took)(?: (?:it|them|one))? over\b(?: \d)?",
        unless: r"\d$",
        bad: "It takes over the descriptor.",
        good: "It adopts the descriptor. It takes over 5 s",
    },
    Rule {
        name: "coined",
        instead: "accept, admit / reject",
        find: r"\b(?:lets?|letting)(?: (?:it|them|one|nobody|\w+s))? in\b|\bdismiss(?:es|ed|ing)?\b|\brefusals?\b",
        unless: "",
        bad: "The peer is let in.",
        good: "The peer is admitted. The kernel refused the connection.",
    },
    Rule {
        name: "coined",
        instead: "close, abort, reset, fail",
        find: r"\b(?:break|breaks|broke|broken|breaking) off\b|\b(?:come|comes|came|coming) to nothing\b|\bgoes? away\b|\bwent away\b",
        unless: "",
        bad: "The connection broke off.",
        good: "The connection was reset.",
    },
    Rule {
        name: "coined",
        instead: "reset (RST), truncate (datagram, text), split (frame)",
        find: r"\b(?:cut|cuts|cutting)\b",
        unless: "",
        bad: "The datagram was cut.",
        good: "The datagram was truncated. A shortcut.",
    },
    Rule {
        name: "coined",
        instead: "network-namespace test (netns test)",
        find: r"\blabs?\b",
        unless: "",
        bad: "The lab has two hosts.",
        good: "The netns test has two hosts and a label.",
    },
    Rule {
        name: "coined",
        instead: "budget",
        find: r"\bbars?\b",
        unless: r"",
        bad: "The bar is 300 instructions.",
        good: "The budget is 300 instructions, and a barrier.",
    },
    Rule {
        name: "coined",
        instead: "lock, or `x's turn to` -> `x is next`",
        find: r"\b(?:the|a|its|their|whose|his|own|another|next|each|this|\w+'s?) turns?\b",
        unless: "",
        bad: "It waits for the writers' turn.",
        good: "It waits for the write lock, and each in turn returns.",
    },
    Rule {
        name: "coined",
        instead: "a term of the glossary: clients per address, invariants, shut down, no lock held, serving mode, in progress",
        find: r"\bcrowd(?:s|ed|ing)?\b|\bthe books\b|\bdeaf\b|\bempty hands\b|\bways? of serving\b|\bunder way\b|\boverruns?\b|\bimpatien(?:ce|t)\b|\bpatien(?:ce|t)\b|\bhammer(?:s|ed|ing)?\b",
        unless: "",
        bad: "The address is crowded.",
        good: "The address has reached its limit.",
    },
    Rule {
        name: "coined",
        instead: "backoff (one word); `waits with backoff`",
        find: r"\bback(?:s|ed|ing)?[- ]off\b",
        unless: "",
        bad: "It waits with exponential back-off.",
        good: "It waits with exponential backoff.",
    },
    Rule {
        name: "coined",
        instead: "idle timeout, first-byte timeout, heartbeat timeout, handover",
        find: r"\bidle[- ]limits?\b|\bfirst[- ]byte[- ]limits?\b|\bheartbeats? (?:is |was )?missed\b|\bmissed heartbeats?\b|\bhand-over\b",
        unless: "",
        bad: "The idle limit is 30 s.",
        good: "The idle timeout is 30 s.",
    },
    Rule {
        name: "coined",
        instead: "not supported on this platform, on other systems",
        find: r"\belsewhere\b",
        unless: "",
        bad: "Linux only; elsewhere it is an error.",
        good: "Linux only; on other systems it is an error.",
    },
    Rule {
        name: "fronted",
        instead: "subject first: name the thing, then the verb",
        find: r"^(?:what|whatever|who|whom|whose|whichever) [^.?!]*(?:[.!]|$)",
        unless: r"^what (?:to|you|is new)\b",
        bad: "What a thread cannot do it orders.",
        good: "A thread posts work that it cannot do. What next?",
    },
    Rule {
        name: "fronted",
        instead: "subject first: `each datagram has`, not `of each datagram`",
        find: r"^of \w+[^.?!]*",
        unless: r"^of course",
        bad: "Of each datagram, the address is checked.",
        good: "The address of each datagram is checked.",
    },
    Rule {
        name: "fronted",
        instead: "subject first; a clause with `that` is no subject",
        find: r"^that (?:it|the|a|an|they|there|nothing|no|one|this|each|every|its) [^.?!]*\b(?:is|are|was|were|has|may|can|must|does)\b",
        unless: "",
        bad: "That the connection ended is logged already.",
        good: "The close is already logged. That works.",
    },
    Rule {
        name: "inversion",
        instead: "subject before verb",
        find: r"^(?:nor|neither|never|not (?:once|before|until|only)|at no \w+|in no \w+|only (?:then|so)|so|as) (?:do|does|did|is|are|was|were|has|have|had|can|may|must|will)\b(?: not)?",
        unless: r"do not$",
        bad: "At no moment does the socket stop listening.",
        good: "The socket listens without interruption.",
    },
    Rule {
        name: "fragment",
        instead: "a whole sentence that stands alone",
        find: r"^(?:nor\b|likewise\b|neither \w+[^.]{0,30}\.|so (?:it|they)\b)",
        unless: "",
        bad: "Nor a Unix socket.",
        good: "A Unix socket is not matched.",
    },
    Rule {
        name: "fragment",
        instead: "a whole sentence that stands alone, not the continuation of the previous one",
        find: r"\A(?:and|but|or|because|which|also (?:when|if|for|in|after))\b[^.?!]*\.",
        unless: r" depends? on ",
        bad: "But not for a Unix socket.",
        good: "Unix sockets are excluded.",
    },
    Rule {
        name: "nounless",
        instead: "name the thing: bytes, data, connections",
        find: r"\bwhat (?:came|comes|come|waits|waited|went|goes|arrived|arrives|remains|(?:is|was|were|has been) (?:sent|read|left|queued|written|known|given|said|passed|promised|needed|to be)|had (?:come|gone|been)|it (?:is|was|has)|they (?:are|were|have))\b",
        unless: "",
        bad: "It returns what came.",
        good: "It returns the bytes that arrived, and says what failed.",
    },
    Rule {
        name: "nounless",
        instead: "repeat the noun instead of `it`, `them`",
        find: r"(?:\w+ )?\bof (?:it|them)\b",
        unless: r"^(?:all|none|each|one|two|three|both|any|most|much|half|some|many|either|neither|few|several|rest|part|parts|copy|copies|because|instead|inside|outside|first|last|more|use|middle|ahead|out|start|end|front|top|size|length|number|regardless) of",
        bad: "The rights of it are checked.",
        good: "All of them are checked.",
    },
    Rule {
        name: "nounless",
        instead: "`is not a ...`",
        find: r"(?:\w+ )?\b(?:is|are|was|were|be) none\b|\b(?:it|that|this|which|name|number|value|address|handle|file|socket|user|word|text) (?:is|are|was|were) no (?:\w+)",
        unless: r"^there | no (?:longer|more|less|later|earlier|larger|smaller|other|different)$",
        bad: "The handle is none.",
        good: "There is none, and it is no longer open.",
    },
    Rule {
        name: "is to be",
        instead: "must be, should be, will be",
        find: r"\b(?:is|are|was|were) to be\b",
        unless: "",
        bad: "The socket is to be closed.",
        good: "The socket must be closed.",
    },
    Rule {
        name: "double negation",
        instead: "say it positively",
        find: r"\b(?:no|not|never|nobody|nothing|none)(?: [\w']+){0,3} (?:nobody|nothing|no one|none)\b|\bnothing (?:that|which) (?:is|does|has) not\b|\bnot without\b",
        unless: r" (?:and|or) | if there (?:is|are|was|were) none$",
        bad: "It does not return nothing.",
        good: "It returns at least one byte. It is not nil.",
    },
    Rule {
        name: "what",
        instead: "name the noun: the events that ..., the bytes that ...",
        find: r"\b(?:of|for|from|on|than|with) what\b,?|\bwhat (?:only|they|came|comes)\b",
        unless: r",$",
        bad: "A change of what the loop waits for.",
        good: "A change of the events that the loop waits for. The error says what is wrong.",
    },
    Rule {
        name: "coined",
        instead: "observe, detect (an error, a reset, the close of a connection)",
        find: r"\b(?:has|have|had|not) met\b|\bmeets? (?:the|an|its) (?:error|end|reset)\b",
        unless: "",
        bad: "No call has met the reset.",
        good: "No call has observed the reset. The caller meets the requirements.",
    },
    Rule {
        name: "coined",
        instead: "has ended, has expired, has been closed",
        find: r"\b(?:is|are|was|were) over\b(?: \d)?",
        unless: r"\d$",
        bad: "The connection is over.",
        good: "The connection has ended. It is over 5 s.",
    },
    Rule {
        name: "coined",
        instead: "does not exist, has exited, was closed, vanished (a peer without a FIN)",
        find: r"\b(?:is|are|was|were|be) gone\b",
        unless: "",
        bad: "The receiver is gone.",
        good: "The receiver was closed.",
    },
    Rule {
        name: "current form",
        instead: "does not have to, does not need to",
        find: r"\bneed not\b",
        unless: "",
        bad: "The peer need not exist.",
        good: "The peer does not have to exist.",
    },
    Rule {
        name: "current form",
        instead: "no longer, before the verb",
        find: r"\bany ?more\b",
        unless: "",
        bad: "The peer does not exist any more.",
        good: "The peer no longer exists.",
    },
    Rule {
        name: "current form",
        instead: "inside, outside",
        find: r"(?:\bthe )?\b(?:in|out)side of\b",
        unless: r"^the ",
        bad: "The message is inside of the buffer.",
        good: "The message is inside the buffer.",
    },
    Rule {
        name: "spelling",
        instead: "cancelled, cancelling, as in the names of the API",
        find: r"\bcancel(?:ed|ing)\b",
        unless: "",
        bad: "A canceled call returns.",
        good: "A cancelled call returns.",
    },
    Rule {
        name: "aphorism",
        instead: "state the rule with its subject, then the reason",
        find: r"\A(?:nothing|silence|everything) (?:is|are|was|has|have|\w+s)\b[^.,:;?!]{0,50}\.\z",
        unless: "",
        bad: "Silence is not a full window.",
        good: "A closed window and a vanished peer are different states.",
    },
    Rule {
        name: "spelling",
        instead: "American spelling",
        find: r"\b(?:behaviours?|colours?|favou?red|honours?|honoured|neighbours?|licences?|centres?|catalogues?|artefacts?|(?:initial|normal|serial|synchron|recogn|organ|optim|minim|maxim|summar|final|random|custom|character|real|priorit|author|util)is(?:e|es|ed|ing|ation|ations)|judgement|grey)\b",
        unless: "",
        bad: "The behaviour is documented.",
        good: "The behavior is documented.",
    },
    Rule {
        name: "long",
        instead: "split the sentence (25 words are enough, 45 are the limit) or make a list",
        find: r"(?:[\w'’/-]+[,:;)]* [(—–-]*){45,}",
        unless: "",
        bad: "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z.",
        good: "a b c d e f g h i j k l m n o p q r s t u v w x y z. a b c d e f g h i j k l m n o p q r s t u v w x y z.",
    },
];

/// The rule for names of tests, which no pattern expresses.
const TEST_NAME: &str = "test name";

/// A paragraph, list item, table cell, string literal or test name.
#[derive(Debug, Default)]
struct Block {
    text: String,
    /// For each source line: the offset in `text` at which it starts, and its number.
    lines: Vec<(usize, usize)>,
    is_test_name: bool,
}

impl Block {
    fn add(&mut self, line: usize, text: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.lines.push((self.text.len(), line));
        self.text.push_str(text);
    }

    fn line(&self, offset: usize) -> usize {
        self.lines.iter().rev().find(|(start, _)| *start <= offset).map_or(0, |(_, line)| *line)
    }
}

#[derive(Debug)]
struct Finding {
    line: usize,
    rule: &'static str,
    text: String,
    instead: &'static str,
}

struct Checker {
    rules: Vec<(&'static Rule, Regex, Option<Regex>)>,
    masks: Vec<Regex>,
}

impl Checker {
    fn new() -> Self {
        // A sentence starts at the start of the block, after a full stop, and after an identifier
        // of a guarantee. `\A` is the start of the block only.
        let start = r"(?:\A|[.!?)] |\A[A-Z]\d+: )";
        let compile = |pattern: &str| Regex::new(&format!("(?i){pattern}")).expect(pattern);
        let rules = RULES
            .iter()
            .map(|rule| {
                let unless = (!rule.unless.is_empty()).then(|| compile(rule.unless));
                let find = match rule.find.strip_prefix('^') {
                    Some(rest) => format!("{start}(?P<found>{rest})"),
                    None => format!("(?P<found>{})", rule.find),
                };
                (rule, compile(&find), unless)
            })
            .collect();
        let masks = [
            r"`[^`]*`",                                       // code
            r#""[^"]{1,80}""#,                                // quotations
            r"\]\([^)]*\)|\]\[[^\]]*\]|<[^<> ]+>|https?:\S+", // links
            r"\{[^{}]*\}|%[-+0-9.*]*(?:l|ll|z|h)*[a-zA-Z]",   // placeholders of format strings
            r"\w+(?:::\w+)+(?:\(\))?|\w+_\w+(?:\(\))?",       // names
        ]
        .map(|pattern| Regex::new(pattern).expect(pattern))
        .into();
        Self { rules, masks }
    }

    /// Replaces everything that is not prose with the letter X, without moving the rest.
    fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for mask in &self.masks {
            let found: Vec<_> = mask.find_iter(&text).map(|m| m.range()).collect();
            for range in found {
                text.replace_range(range.clone(), &"X".repeat(range.len()));
            }
        }
        text
    }

    fn check(&self, block: &Block) -> Vec<Finding> {
        let mut findings = Vec::new();
        if block.is_test_name && block.text.split(' ').count() < 3 {
            findings.push(Finding {
                line: block.line(0),
                rule: TEST_NAME,
                text: block.text.replace(' ', "_"),
                instead: "<unit>_<condition>_<expected>, at least three words",
            });
        }
        let text = self.mask(&block.text);
        for (rule, find, unless) in &self.rules {
            for captures in find.captures_iter(&text) {
                let found = captures.name("found").expect("each pattern has this group");
                if unless.as_ref().is_some_and(|unless| unless.is_match(found.as_str())) {
                    continue;
                }
                // Some words before the match show its sentence.
                let before = &block.text[..found.start()];
                let from = before.char_indices().rev().filter(|(_, c)| *c == ' ').nth(4);
                let from = from.map_or(0, |(n, _)| n + 1);
                let excerpt: String = block.text[from..].chars().take(90).collect();
                findings.push(Finding {
                    line: block.line(found.start()),
                    rule: rule.name,
                    text: excerpt,
                    instead: rule.instead,
                });
            }
        }
        findings
    }
}

/// Divides lines of Markdown, or of a documentation comment, into blocks.
fn markdown<'a>(lines: impl Iterator<Item = (usize, &'a str)>, out: &mut Vec<Block>) {
    let mut block = Block::default();
    let mut fence = false;
    let mut after_blank = true;
    let mut indented = false;
    for (number, raw) in lines {
        let line = raw.trim();
        if line.starts_with("```")
            || line.starts_with("~~~")
            || line == "@code"
            || line == "@endcode"
        {
            fence = line == "@code" || (line != "@endcode" && !fence);
            out.push(std::mem::take(&mut block));
            continue;
        }
        if fence {
            continue;
        }
        let deep = raw.starts_with("    ");
        indented = deep && (indented || (after_blank && block.text.is_empty()));
        after_blank = line.is_empty();
        if after_blank || indented || line.starts_with('#') || line.starts_with('|') {
            out.push(std::mem::take(&mut block));
            indented |= after_blank && deep;
            if line.starts_with('|') {
                for cell in line.split('|') {
                    let mut item = Block::default();
                    item.add(number, cell.trim());
                    out.push(item);
                }
            } else if line.starts_with('#') {
                let mut item = Block::default();
                item.add(number, line.trim_start_matches(['#', ' ', '!']));
                out.push(item);
            }
            continue;
        }
        let item = ["- ", "* ", "+ ", "@param ", "@return ", "@note ", "@brief ", "@since "]
            .iter()
            .find_map(|mark| line.strip_prefix(mark).map(|rest| (mark, rest)));
        match item {
            Some((mark, rest)) => {
                out.push(std::mem::take(&mut block));
                let rest = match *mark {
                    "@param " => rest.split_once(' ').map_or("", |(_, rest)| rest),
                    _ => rest,
                };
                block.add(number, rest.trim());
            }
            None => block.add(number, line),
        }
    }
    out.push(block);
}

/// Finds the comments, the string literals with at least three words, and the names of tests in
/// Rust or C.
fn code(source: &str, rust: bool, strings: bool) -> Vec<Block> {
    let bytes = source.as_bytes();
    let mut out = Vec::new();
    let mut comments: Vec<(usize, &str, &str)> = Vec::new();
    let (mut at, mut line) = (0, 1);
    let mut code_on_line = false;
    let flush = |comments: &mut Vec<(usize, &str, &str)>, out: &mut Vec<Block>| {
        markdown(comments.iter().map(|(number, _, text)| (*number, *text)), out);
        comments.clear();
    };
    while at < bytes.len() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            let mark = if rest.starts_with("///") {
                "///"
            } else if rest.starts_with("//!") {
                "//!"
            } else {
                "//"
            };
            let text = rest[mark.len()..end].trim_end();
            let text = text.strip_prefix(' ').or(text.strip_prefix("< ")).unwrap_or(text);
            let follows = comments.last().is_some_and(|(number, last, _)| {
                *number + 1 == line && *last == mark && !code_on_line
            });
            if !follows {
                flush(&mut comments, &mut out);
            }
            comments.push((line, if code_on_line { "trailing" } else { mark }, text));
            at += end;
        } else if rest.starts_with("/*") {
            flush(&mut comments, &mut out);
            let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
            for (n, text) in rest[2..end.saturating_sub(2).max(2)].split('\n').enumerate() {
                let text = if n == 0 {
                    text.trim_start_matches(['*', '!', '<'])
                } else {
                    text.trim_start().trim_start_matches('*')
                };
                comments.push((line + n, "*", text.strip_prefix(' ').unwrap_or(text)));
            }
            flush(&mut comments, &mut out);
            line += rest[..end].matches('\n').count();
            at += end;
        } else if rest.starts_with('"') || (rust && raw_string(source, at).is_some()) {
            let (start, close, raw) = match raw_string(source, at).filter(|_| rust) {
                Some(hashes) => (hashes + 2, format!("\"{}", "#".repeat(hashes)), true),
                None => (1, "\"".to_owned(), false),
            };
            let mut end = start;
            while end < rest.len() && !rest[end..].starts_with(&close) {
                end += if rest.as_bytes()[end] == b'\\' && !raw { 2 } else { 1 };
                while end < rest.len() && !rest.is_char_boundary(end) {
                    end += 1;
                }
            }
            let literal = &rest[start..end.min(rest.len())];
            let data = at > 0 && bytes[at - 1] == b'b';
            if strings && !data && is_prose(literal) {
                let mut block = Block::default();
                for (n, text) in literal.split('\n').enumerate() {
                    let text = text.trim().trim_end_matches('\\').trim_end();
                    for (m, part) in text.split("\\n").enumerate() {
                        if m > 0 {
                            out.push(std::mem::take(&mut block));
                        }
                        block.add(line + n, &part.replace("\\\"", "\" ").replace('\\', " "));
                    }
                }
                out.push(block);
            }
            line += rest[..end.min(rest.len())].matches('\n').count();
            at += (end + close.len()).min(rest.len());
            code_on_line = true;
        } else if rest.starts_with('\'') {
            // A character literal; a lifetime has no closing quote.
            let mut chars = rest.char_indices().skip(1);
            let first = chars.next();
            let width = match first {
                Some((_, '\\')) => rest[3.min(rest.len())..].find('\'').map(|n| n + 4),
                Some((n, c)) if rest[n + c.len_utf8()..].starts_with('\'') => {
                    Some(n + c.len_utf8() + 1)
                }
                _ => None,
            };
            at += width.unwrap_or(1);
        } else {
            let c = rest.chars().next().unwrap_or(' ');
            if c == '\n' {
                line += 1;
                code_on_line = false;
            } else if !c.is_whitespace() {
                code_on_line = true;
            }
            at += c.len_utf8();
        }
    }
    flush(&mut comments, &mut out);
    if rust {
        test_names(source, &mut out);
    }
    out
}

/// The number of `#` of the raw string literal at an offset, or None if there is none.
fn raw_string(source: &str, at: usize) -> Option<usize> {
    let rest = source[at..].strip_prefix('r')?;
    let before = source[..at].chars().next_back();
    if before.is_some_and(|c| (c.is_alphanumeric() || c == '_') && c != 'b' && c != 'c') {
        return None;
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// A string literal is prose if it has three words in a row and does not look like code.
fn is_prose(literal: &str) -> bool {
    let is_word = |word: &str| {
        let word = word.trim_matches([',', '.', ':', ';', '(', ')', '?', '!']);
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic() || c == '\'' || c == '-')
    };
    let mut run = 0;
    let words = literal.split_whitespace().any(|word| {
        run = if is_word(word) { run + 1 } else { 0 };
        run == 3
    });
    let looks_like_code = ["();", "#include", "$(", " = ", "{{", "\\r", " -> ", "fn "];
    words && !looks_like_code.iter().any(|mark| literal.contains(mark))
}

/// Adds the name of each test as a block of words.
fn test_names(source: &str, out: &mut Vec<Block>) {
    let mut add = |line: usize, name: &str| {
        let mut block = Block { is_test_name: true, ..Block::default() };
        block.add(line, &name.replace('_', " "));
        out.push(block);
    };
    let (mut is_test, mut in_list) = (false, false);
    for (n, line) in source.lines().enumerate() {
        let line = line.trim();
        let list = line.split_once("![").filter(|(name, _)| name.starts_with("both_"));
        if in_list || list.is_some() {
            let names = list.map_or(line, |(_, names)| names);
            in_list = !names.ends_with("];");
            for name in names.trim_end_matches([']', ';']).split(',').map(str::trim) {
                if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                    add(n + 1, name);
                }
            }
        } else if line == "#[test]" {
            is_test = true;
        } else if is_test && line.contains("fn ") {
            is_test = false;
            let name = line.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next());
            if let Some(name) = name.filter(|name| !name.starts_with('$')) {
                add(n + 1, name);
            }
        }
    }
}

/// Comments that start with `#`: scripts, TOML, CMake.
fn script(source: &str) -> Vec<Block> {
    let mut out = Vec::new();
    let mut run: Vec<(usize, &str)> = Vec::new();
    for (n, line) in source.lines().enumerate() {
        match line.trim().strip_prefix('#') {
            Some(text) if !text.starts_with(['!', '[']) => run.push((n + 1, text.trim())),
            _ => markdown(run.drain(..), &mut out),
        }
    }
    markdown(run.into_iter(), &mut out);
    out
}

/// The blocks of a file, by its name; None for a file without prose.
fn blocks(path: &str, source: &str) -> Option<Vec<Block>> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ext = name.rsplit_once('.').map_or("", |(_, ext)| ext);
    match ext {
        "rs" => Some(code(source, true, name != "prose.rs")),
        "c" | "h" | "cpp" | "hpp" => Some(code(source, false, true)),
        "md" => {
            // Sections of released versions are history.
            let released = source.match_indices("\n## ").nth(1).filter(|_| name == "CHANGELOG.md");
            let source = &source[..released.map_or(source.len(), |(end, _)| end)];
            let mut out = Vec::new();
            markdown(source.lines().enumerate().map(|(n, line)| (n + 1, line)), &mut out);
            Some(out)
        }
        "toml" | "sh" | "py" | "cmake" => Some(script(source)),
        _ if name == "CMakeLists.txt" || path == ".ci/run" => Some(script(source)),
        _ => None,
    }
}

fn walk(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if (!name.starts_with('.') || name == ".ci") && !["target", "build"].contains(&name) {
                walk(&path, files);
            }
        } else {
            files.push(path);
        }
    }
}

/// The findings of each file of the project.
fn findings(root: &Path) -> BTreeMap<String, Vec<Finding>> {
    let checker = Checker::new();
    let mut files = Vec::new();
    walk(root, &mut files);
    let mut all = BTreeMap::new();
    let mut used = vec![false; ALLOWED.len()];
    for file in files {
        let path =
            file.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        let Some(blocks) = fs::read_to_string(&file).ok().and_then(|source| blocks(&path, &source))
        else {
            continue;
        };
        let mut found: Vec<_> = blocks.iter().flat_map(|block| checker.check(block)).collect();
        found.retain(|finding| {
            let allowed = ALLOWED
                .iter()
                .position(|(file, text, _)| *file == path && finding.text.contains(text));
            allowed.map(|n| used[n] = true).is_none()
        });
        found.sort_by_key(|finding| finding.line);
        if !found.is_empty() {
            all.insert(path, found);
        }
    }
    let unused: Vec<_> =
        ALLOWED.iter().zip(used).filter(|(_, used)| !used).map(|(entry, _)| entry).collect();
    assert!(unused.is_empty(), "entries of ALLOWED that match no text: {unused:?}");
    all
}

#[test]
fn prose_of_the_project_follows_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = findings(root);
    let mut report = String::new();
    for (path, found) in &all {
        for Finding { line, rule, text, instead } in found {
            writeln!(report, "{path}:{line}: {rule}: {text}\n    instead: {instead}").unwrap();
        }
    }
    assert!(report.is_empty(), "the prose check fails:\n{report}");
}

#[test]
fn rule_flags_its_bad_sentence_and_no_good_one() {
    let checker = Checker::new();
    let rules_of = |text: &str| -> Vec<&str> {
        let mut block = Block::default();
        block.add(1, text);
        checker.check(&block).iter().map(|finding| finding.rule).collect()
    };
    for rule in RULES {
        assert!(
            rules_of(rule.bad).contains(&rule.name),
            "{} does not flag: {}",
            rule.name,
            rule.bad
        );
        assert_eq!(rules_of(rule.good), [""; 0], "{} flags: {}", rule.name, rule.good);
    }
}

#[test]
fn test_name_with_fewer_than_three_words_is_flagged() {
    let names = |source: &str| {
        let checker = Checker::new();
        code(source, true, true)
            .iter()
            .flat_map(|block| checker.check(block))
            .map(|f| (f.line, f.rule))
            .collect::<Vec<_>>()
    };
    assert_eq!(names("#[test]\nfn bound() {}\n"), [(2, TEST_NAME)]);
    let grouped = "both_ways![\n    all_or_none,\n    #[cfg(unix)] {\n        places,\n    }\n];\n";
    assert_eq!(names(grouped), [(4, TEST_NAME)]);
    assert_eq!(names("#[test]\nfn bind_port_in_use_fails() {}\n"), []);
}

#[test]
fn code_and_quotations_are_not_prose() {
    let source = r##"
fn ask(nobody: u8) -> &'static str { // `tell` and "take over" are quoted.
    let c = '"'; let bytes = b"nobody asks for it";
    let raw = r#"the peer is "told" it"#;
    /* Lines are counted. */
    "two words"
}
/// ```
/// nobody();
/// ```
/// A connection
/// that is told.
"##;
    let checker = Checker::new();
    let found: Vec<_> = code(source, true, true)
        .iter()
        .flat_map(|block| checker.check(block))
        .map(|f| (f.line, f.text))
        .collect();
    assert_eq!(found, [(12, "A connection that is told.".to_owned())]);
}
