//! Whether a script is one of LuaJIT's, which Envoy runs scripts with: Lua 5.1 with `goto` and more escapes.
//!
//! Only the grammar is known here, and what the compiler refuses beside it: what a script does when it is
//! loaded, which Envoy does too, is not.

mod token;

use self::token::{Lexer, Problem, Token};

/// Levels of nesting. LuaJIT has such a limit too; beyond it nothing is said of a script.
const DEPTH_MAX: usize = 150;

/// What is wrong with a script: the line, and what is there.
#[must_use]
pub fn problem(script: &str) -> Option<String> {
    let script = script.strip_prefix('\u{feff}').unwrap_or(script);
    // What is compiled already starts with an escape, and is not looked into.
    if script.starts_with('\u{1b}') {
        return None;
    }
    let mut parser = Parser::new(script);
    match parser.chunk() {
        Ok(()) | Err(Stop::TooDeep) => None,
        Err(Stop::Wrong(Problem { line, words })) => Some(format!("line {line}: {words}")),
    }
}

/// Why reading stops.
enum Stop {
    Wrong(Problem),
    TooDeep,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Stop::Wrong(problem)
    }
}

type Read<T = ()> = Result<T, Stop>;

/// What an expression is, as far as statements ask.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Call,
    /// Something that can be assigned to.
    Place,
    Other,
}

struct Parser<'s> {
    lexer: Lexer<'s>,
    token: Token<'s>,
    /// The line of the token.
    line: usize,
    depth: usize,
    /// Of the function that is read: the loops around, and whether it takes any number of arguments.
    loops: usize,
    takes_any: bool,
}

/// Binary operators with their binding powers to the left and to the right.
const OPERATORS: [(&str, u8, u8); 15] = [
    ("or", 1, 1),
    ("and", 2, 2),
    ("<", 3, 3),
    (">", 3, 3),
    ("<=", 3, 3),
    (">=", 3, 3),
    ("~=", 3, 3),
    ("==", 3, 3),
    ("..", 5, 4),
    ("+", 6, 6),
    ("-", 6, 6),
    ("*", 7, 7),
    ("/", 7, 7),
    ("%", 7, 7),
    ("^", 10, 9),
];

/// Binding power of unary operators.
const UNARY: u8 = 8;

impl<'s> Parser<'s> {
    fn new(script: &'s str) -> Self {
        let lexer = Lexer::new(script);
        Parser { lexer, token: Token::End, line: 1, depth: 0, loops: 0, takes_any: true }
    }

    fn chunk(&mut self) -> Read {
        self.advance()?;
        self.block()?;
        if self.token == Token::End { Ok(()) } else { Err(self.unexpected()) }
    }

    fn advance(&mut self) -> Read {
        self.token = self.lexer.token()?;
        self.line = self.lexer.line;
        Ok(())
    }

    fn is(&self, word: &str) -> bool {
        matches!(self.token, Token::Word(known) if known == word)
    }

    /// Passes a word if it is there.
    fn take(&mut self, word: &str) -> Read<bool> {
        let is_there = self.is(word);
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    fn demand(&mut self, word: &str) -> Read {
        if self.take(word)? {
            Ok(())
        } else {
            Err(self.wrong(format!("`{word}` expected near {}", self.shown())))
        }
    }

    fn name(&mut self) -> Read {
        match self.token {
            Token::Name(_) => self.advance(),
            _ => Err(self.wrong(format!("a name expected near {}", self.shown()))),
        }
    }

    fn shown(&self) -> String {
        match self.token {
            Token::Name(name) => format!("`{name}`"),
            Token::Word(word) => format!("`{word}`"),
            Token::Number => "a number".to_owned(),
            Token::Text => "a string".to_owned(),
            Token::End => "the end".to_owned(),
        }
    }

    fn wrong(&self, words: String) -> Stop {
        Stop::Wrong(Problem { line: self.line, words })
    }

    fn unexpected(&self) -> Stop {
        self.wrong(format!("unexpected {}", self.shown()))
    }

    /// Reads something that may hold itself.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        if self.depth == DEPTH_MAX {
            return Err(Stop::TooDeep);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn block(&mut self) -> Read {
        self.nested(|parser| {
            while !parser.ends_block() {
                if parser.is("return") {
                    parser.advance()?;
                    if !parser.ends_block() && !parser.is(";") {
                        parser.expressions()?;
                    }
                    parser.take(";")?;
                    return if parser.ends_block() { Ok(()) } else { Err(parser.unexpected()) };
                }
                parser.statement()?;
                parser.take(";")?;
            }
            Ok(())
        })
    }

    fn ends_block(&self) -> bool {
        self.token == Token::End || ["end", "else", "elseif", "until"].iter().any(|word| self.is(word))
    }

    fn statement(&mut self) -> Read {
        let Token::Word(word) = self.token else { return self.expression_statement() };
        match word {
            ";" => self.advance(),
            "if" => {
                self.advance()?;
                self.expression()?;
                self.demand("then")?;
                self.block()?;
                while self.take("elseif")? {
                    self.expression()?;
                    self.demand("then")?;
                    self.block()?;
                }
                if self.take("else")? {
                    self.block()?;
                }
                self.demand("end")
            }
            "while" => {
                self.advance()?;
                self.expression()?;
                self.demand("do")?;
                self.loop_block()?;
                self.demand("end")
            }
            "do" => {
                self.advance()?;
                self.block()?;
                self.demand("end")
            }
            "for" => self.for_statement(),
            "repeat" => {
                self.advance()?;
                self.loop_block()?;
                self.demand("until")?;
                self.expression()
            }
            "function" => {
                self.advance()?;
                self.name()?;
                while self.take(".")? {
                    self.name()?;
                }
                if self.take(":")? {
                    self.name()?;
                }
                self.body()
            }
            "local" => {
                self.advance()?;
                if self.take("function")? {
                    self.name()?;
                    return self.body();
                }
                self.names()?;
                if self.take("=")? { self.expressions() } else { Ok(()) }
            }
            "break" => {
                if self.loops == 0 {
                    return Err(self.wrong("`break` outside of a loop".to_owned()));
                }
                self.advance()
            }
            "::" => {
                self.advance()?;
                self.name()?;
                self.demand("::")
            }
            _ => self.expression_statement(),
        }
    }

    fn for_statement(&mut self) -> Read {
        self.advance()?;
        self.name()?;
        if self.take("=")? {
            self.expression()?;
            self.demand(",")?;
            self.expression()?;
            if self.take(",")? {
                self.expression()?;
            }
        } else {
            while self.take(",")? {
                self.name()?;
            }
            self.demand("in")?;
            self.expressions()?;
        }
        self.demand("do")?;
        self.loop_block()?;
        self.demand("end")
    }

    fn loop_block(&mut self) -> Read {
        self.loops += 1;
        self.block()?;
        self.loops -= 1;
        Ok(())
    }

    fn names(&mut self) -> Read {
        self.name()?;
        while self.take(",")? {
            self.name()?;
        }
        Ok(())
    }

    /// A call, an assignment, or `goto a`, which is no reserved word.
    fn expression_statement(&mut self) -> Read {
        if self.token == Token::Name("goto") {
            self.advance()?;
            if matches!(self.token, Token::Name(_)) {
                return self.advance();
            }
            // A variable of that name.
            return self.rest_of_statement(Form::Place);
        }
        let form = self.primary()?;
        self.assignment(form)
    }

    fn rest_of_statement(&mut self, form: Form) -> Read {
        let form = self.suffixes(form)?;
        self.assignment(form)
    }

    fn assignment(&mut self, form: Form) -> Read {
        if form == Form::Call {
            return Ok(());
        }
        let mut form = form;
        while form == Form::Place && self.take(",")? {
            form = self.primary()?;
        }
        if form != Form::Place || !self.is("=") {
            return Err(self.unexpected());
        }
        self.advance()?;
        self.expressions()
    }

    fn expressions(&mut self) -> Read {
        self.expression()?;
        while self.take(",")? {
            self.expression()?;
        }
        Ok(())
    }

    fn expression(&mut self) -> Read {
        self.operation(0)
    }

    fn operation(&mut self, limit: u8) -> Read {
        self.nested(|parser| {
            if ["not", "-", "#"].iter().any(|word| parser.is(word)) {
                parser.advance()?;
                parser.operation(UNARY)?;
            } else {
                parser.simple()?;
            }
            while let Some((_, _, right)) =
                OPERATORS.iter().find(|(word, left, _)| parser.is(word) && *left > limit)
            {
                parser.advance()?;
                parser.operation(*right)?;
            }
            Ok(())
        })
    }

    fn simple(&mut self) -> Read {
        match self.token {
            Token::Number | Token::Text | Token::Word("nil" | "true" | "false") => self.advance(),
            Token::Word("...") if self.takes_any => self.advance(),
            Token::Word("...") => {
                Err(self.wrong("`...` in a function that does not take any number of arguments".to_owned()))
            }
            Token::Word("{") => self.table(),
            Token::Word("function") => {
                self.advance()?;
                self.body()
            }
            _ => self.primary().map(|_| ()),
        }
    }

    fn primary(&mut self) -> Read<Form> {
        let form = match self.token {
            Token::Name(_) => {
                self.advance()?;
                Form::Place
            }
            Token::Word("(") => {
                self.advance()?;
                self.expression()?;
                self.demand(")")?;
                Form::Other
            }
            _ => return Err(self.unexpected()),
        };
        self.suffixes(form)
    }

    fn suffixes(&mut self, mut form: Form) -> Read<Form> {
        loop {
            form = match self.token {
                Token::Word(".") => {
                    self.advance()?;
                    self.name()?;
                    Form::Place
                }
                Token::Word("[") => {
                    self.advance()?;
                    self.expression()?;
                    self.demand("]")?;
                    Form::Place
                }
                Token::Word(":") => {
                    self.advance()?;
                    self.name()?;
                    self.arguments()?;
                    Form::Call
                }
                Token::Word("(" | "{") | Token::Text => {
                    self.arguments()?;
                    Form::Call
                }
                _ => return Ok(form),
            };
        }
    }

    fn arguments(&mut self) -> Read {
        match self.token {
            Token::Text => self.advance(),
            Token::Word("{") => self.table(),
            _ => {
                self.demand("(")?;
                if !self.is(")") {
                    self.expressions()?;
                }
                self.demand(")")
            }
        }
    }

    fn table(&mut self) -> Read {
        self.demand("{")?;
        while !self.is("}") {
            if self.take("[")? {
                self.expression()?;
                self.demand("]")?;
                self.demand("=")?;
                self.expression()?;
            } else {
                // `name = value` starts as the expression `name` does.
                let is_name = matches!(self.token, Token::Name(_));
                self.expression()?;
                if is_name && self.take("=")? {
                    self.expression()?;
                }
            }
            if !self.take(",")? && !self.take(";")? {
                break;
            }
        }
        self.demand("}")
    }

    /// Parameters and block of a function.
    fn body(&mut self) -> Read {
        self.demand("(")?;
        let mut takes_any = false;
        while !self.is(")") {
            takes_any = self.take("...")?;
            if takes_any {
                break;
            }
            self.name()?;
            if !self.take(",")? {
                break;
            }
            if self.is(")") {
                return Err(self.unexpected());
            }
        }
        self.demand(")")?;
        let outer = (self.loops, self.takes_any);
        (self.loops, self.takes_any) = (0, takes_any);
        self.block()?;
        (self.loops, self.takes_any) = outer;
        self.demand("end")
    }
}

#[cfg(test)]
mod tests {
    use super::problem;

    fn check(script: &str, expected: Option<&str>) {
        assert_eq!(problem(script).as_deref(), expected, "{script}");
    }

    #[test]
    fn scripts_that_envoy_takes_are_taken() {
        for script in [
            "",
            "x=1",
            "x = 1;; y = 2;",
            "# a line for the shell\nx = 1",
            "goto a ::a::",
            "goto = 1 goto.x = 2",
            "\u{feff}x = 1",
            "x = 'a\\\r\nb'",
            "x = 'a\\\nb'",
            "x = 1 .. 2 .. 'a\\z   b' .. \"\\u{41}\\x41\\065\\n\"",
            "x = 0b11 + 1ULL + 0x1p4 + 0xA.8 + 1e-3 + .5 + 3. + 2i",
            "while true do break x = 1 end",
            "for i = 1, 2, 3 do end for k, v in pairs({}) do end repeat local a until a",
            "local function f(...) return ..., select('#', ...) end",
            "local a, b = {1, 2; x = 3, ['y'] = 4, f(), [[long\n]], [=[ ]] ]=]}",
            "function a.b.c:d(x, ...) if x then return elseif y then return 1 else return; end end",
            "a.b[1]:c 'text' {t} (1).d = -2 ^ 2 == 4 and not #x",
            "a, b.c = b.c, a -- done",
            "--[[ a\ncomment ]] x = 1 --[==[ ]] ]==]",
            "f'x' g{1} h[[y]]",
            "function envoy_on_response(r) r:headers():add('x-a', 'b') end",
        ] {
            check(script, None);
        }
        check(&format!("x = {}1{}", "(".repeat(1000), ")".repeat(1000)), None);
    }

    #[test]
    fn scripts_that_envoy_refuses_are_said_with_their_line() {
        check("function envoy_on_request(h) if end", Some("line 1: unexpected `end`"));
        check("break", Some("line 1: `break` outside of a loop"));
        check("x = '\\q'", Some("line 1: invalid escape sequence"));
        check("return 1 x = 2", Some("line 1: unexpected `x`"));
        let message = "line 1: `...` in a function that does not take any number of arguments";
        check("function f() return ... end", Some(message));
        check("local x <const> = 1", Some("line 1: unexpected `<`"));
        check("x = 1 // 2", Some("line 1: unexpected `/`"));
        check("x = 1 & 2", Some("line 1: unexpected symbol '&'"));
        check("x = 3x", Some("line 1: malformed number 3x"));
        check("x = 1\ny = 'a\nb'", Some("line 2: unfinished string"));
        check("x = [[a", Some("line 1: unfinished long string"));
        check("while true do\nfunction f() break end end", Some("line 2: `break` outside of a loop"));
        check("x", Some("line 1: unexpected the end"));
        check("f() = 1", Some("line 1: unexpected `=`"));
        check("(x) = 1", Some("line 1: unexpected `=`"));
        check("if x then\n\n", Some("line 3: `end` expected near the end"));
        check("x = {1 2}", Some("line 1: `}` expected near a number"));
        check("function f(a,) end", Some("line 1: unexpected `)`"));
    }
}
