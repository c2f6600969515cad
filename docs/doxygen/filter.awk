# Prepares a header for Doxygen (docs/Doxyfile): the comments of the headers are written for readers of
# the headers, without the commands of Doxygen for groups, tables and links.
#
# - A header is a group, and each of its sections is a group inside it.
# - The comment of keepsock.h is the main page.
# - Names become links. Tables of aligned columns become HTML tables.
# - The parameters that the comment of a function omits get the text of the conventions.
# - `typedef int32_t NAME; enum { ... };` becomes an enumeration with that name.

BEGIN { ERROR = "Receives a #keepsock_error if the call fails. NULL if the status is enough." }

FNR == 1 {
    name = FILENAME
    sub(/.*\//, "", name)
    sub(/\.h$/, "", name)
    is_main = name == "keepsock"
}

# ---- comments ----------------------------------------------------------------------------------

/^\/\*( ---- .*)?$/ || /^\/\*\*$/ { begin_comment($0); next }
is_comment && /^ \*\/$/ { end_comment(); next }
is_comment {
    line = $0
    sub(/^ \* ?/, "", line)
    comment_line(line)
    next
}

# A comment on one line, or of a member.
in_member || /\/\*\*/ {
    start = in_member ? 1 : index($0, "/**")
    line = substr($0, 1, start - 1) linked(substr($0, start))
    in_member = line !~ /\*\//
    if (line ~ /^\/\*\* .*\*\/$/) {
        # Of a declaration, which follows.
        sub(/ *\*\/$/, "", line)
        begin_comment("/**")
        is_comment = 0
        begin_declaration(line "\n")
        next
    }
    print line
    next
}

# ---- declarations ------------------------------------------------------------------------------

has_pending { declaration($0); next }
/^#ifdef __cplusplus/ { skipped = 3 }
skipped > 0 { skipped--; next }
{ print }

END {
    if (sections > 0) print "/** @} */"
    if (!is_main) print "/** @} */"
}

function begin_comment(line) {
    is_comment = 1
    is_section = line ~ /^\/\*( |$)/
    text = parameters = ""
    is_code = is_item = is_contents = is_index = rows = 0
}

function comment_line(line,    title) {
    if (is_section && line ~ /^---- /) {
        title = line
        sub(/^---- [0-9]+\. /, "", title)
        sub(/ -+$/, "", title)
        if (sections > 0) print "/** @} */"
        text = "@defgroup " name "_" ++sections " " title "\n@ingroup " name "_h\n"
        return
    }
    if (line == "@endcode") is_code = 0
    if (is_code || line ~ /^@(end)?code$/) {
        flush_table()
        if (line == "@code") { is_code = 1; line = "@code{.c}" }
        text = text line "\n"
        return
    }
    if (line ~ /^@file /) {
        text = is_main ? "@mainpage\n" : "@addtogroup " name "_h\n"
        return
    }
    if (line ~ /^SPDX-/) return
    # The group has the line of keepsock.h.
    if (line ~ /^@brief / && !is_main) { text = text "@details\n"; return }
    sub(/^@brief /, "", line)
    # Doxygen lists the sections of a group itself.
    if (line == "Contents") is_contents = 1
    if (is_contents) { if (line != "") return; is_contents = 0 }
    if (line ~ /^Index by task/) { is_index = 1; text = text "@section tasks Index by task\n"; return }
    if (line ~ /^Conventions/) { text = text "@section conventions Conventions\n"; return }
    if (is_index) { index_line(line); return }

    if (line == "") is_item = 0
    else if (line ~ /^ *- / || line ~ /^\([0-9]\) / || line ~ /^@/) is_item = 1
    else if (line ~ /^[^ ]/) is_item = 0
    if (line ~ /^  / && !is_item) { table[++rows] = line; return }
    flush_table()
    if (line ~ /^@param /) {
        split(line, words, " ")
        parameters = parameters " " words[2] " "
    }
    if (line ~ /^\([0-9]\) /) text = text "\n"
    if (line ~ /^Threads: /) {
        line = "@par Threads\n" toupper(substr(line, 10, 1)) substr(line, 11)
    }
    text = text linked(line) "\n"
}

function end_comment() {
    flush_table()
    if (is_index) {
        end_list()
        text = text "</dl>\n"
    }
    is_comment = 0
    if (is_section) {
        # Without the command the first sentence would be the brief description. A group always has
        # the heading of a description.
        if (!sub(/\n\n/, "\n@details\n", text)) text = text "@details\nA section of @ref " name "_h.\n"
        printf "/**\n%s@{ */\n", text
    } else if (text ~ /^@(mainpage|addtogroup)/) {
        printf "/** @file\n@brief %s */\n", is_main ? "All topics." : "See the group @ref " name "_h."
        printf "/**\n%s%s */\n", text, is_main ? "" : "@{"
        printf "%s", groups
    } else {
        begin_declaration("/**\n" text)
    }
}

function begin_declaration(comment) {
    pending = comment
    has_pending = 1
    code = ""
}

# Collects a declaration up to its end, and prints it after its comment. `typedef int32_t NAME;` is the
# name of the enumeration on the next line.
function declaration(line,    word) {
    code = code line "\n"
    if (code ~ /^typedef int32_t [a-z_]+;\n$/) return
    if (code ~ /^typedef int32_t [a-z_]+;\nenum \{/) {
        word = code
        sub(/^typedef int32_t /, "", word)
        sub(/;.*/, "", word)
        code = "enum " word " {\n"
    } else if (code !~ /^#/ && code !~ /[;{]/) {
        return
    }
    has_pending = 0
    if (code ~ /^[a-z].*\(/ && code !~ /^typedef/) add_parameters()
    printf "%s */\n%s", pending, code
}

# Describes the parameters that the comment omits: the object first, the others last.
function add_parameters(    list, all, count, i, type, word) {
    list = code
    gsub(/\n/, " ", list)
    sub(/^[^(]*\(/, "", list)
    sub(/\).*/, "", list)
    count = split(list, all, ",")
    for (i = 1; i <= count; i++) {
        word = all[i]
        sub(/\[[0-9]*\]$/, "", word)
        match(word, /[a-z_0-9]+$/)
        word = substr(word, RSTART)
        if (index(parameters, " " word " ") > 0) continue
        if (word == "error") {
            insert("@return", word, ERROR)
        } else if (word == "size") {
            insert("@return", word, "`sizeof *out`.")
        } else if (i == 1 && match(list, /keepsock_[a-z_]+/)) {
            type = "#" substr(list, RSTART, RLENGTH)
            if (code ~ /_free\(/) insert("@param", word, "The " type " to free. NULL is ignored.")
            else insert("@param", word, "The " type ".")
        }
    }
}

# Inserts a parameter before the first line with a command.
function insert(command, word, text,    at) {
    text = "@param " word "  " text "\n"
    at = index(pending, "\n" command)
    if (at == 0) at = index(pending, "\n@return")
    if (at == 0) at = index(pending, "\n@note")
    if (at == 0) at = length(pending)
    pending = substr(pending, 1, at) text substr(pending, at + 1)
}

# ---- text --------------------------------------------------------------------------------------

# Makes links of names, and escapes what Markdown and Doxygen would take for a command.
function linked(line,    out, word, before) {
    out = ""
    while (match(line, /`[^`]*`|(keepsock|KEEPSOCK)_[A-Za-z0-9_]+(\(\))?/)) {
        out = out escaped(substr(line, 1, RSTART - 1))
        before = substr(line, RSTART - 1, 1)
        word = substr(line, RSTART, RLENGTH)
        line = substr(line, RSTART + RLENGTH)
        if (word ~ /^`|_$/ || (RSTART > 1 && before == "\"")) out = out word
        else out = out "#" word
    }
    return out escaped(line)
}

# `<errno.h>` is no HTML.
function escaped(text) {
    gsub(/<[a-zA-Z]/, "\\\\&", text)
    return text
}

# An aligned table: two columns, or more with a line of dashes below the titles.
function flush_table(    i, line, columns, from) {
    if (rows == 0) return
    text = text "\n<table class=\"pairs\">\n"
    columns = from = 0
    if (rows > 1 && table[2] ~ /^ *---/) {
        line = table[2]
        while (match(substr(line, from + 1), /-+/)) {
            start_of[++columns] = from + RSTART
            from += RSTART + RLENGTH - 1
        }
    }
    for (i = 1; i <= rows; i++) row(table[i], i, columns)
    if (cells > 0) text = text cells_as_row()
    text = text "</table>\n\n"
    rows = 0
}

function row(line, number, columns,    i, part, is_whole) {
    if (columns > 0 && number == 2) return
    if (columns == 0) {
        if (match(substr(line, 3), /[^ ]   *[^ ]/) && line !~ /^    /) {
            cut(line, RSTART + 3)
            return
        }
        cell_of[2] = cell_of[2] " " trimmed(line)
        return
    }
    is_whole = 1
    for (i = 1; i <= columns; i++) {
        part[i] = trimmed(substr(line, start_of[i], i < columns ? start_of[i + 1] - start_of[i] : 999))
        if (part[i] == "") is_whole = 0
    }
    if (is_whole) new_row(number == 1 ? "th" : "td")
    for (i = 1; i <= columns; i++) {
        if (part[i] != "") cell_of[i] = is_whole ? part[i] : cell_of[i] " " part[i]
    }
    cells = columns
}

function cut(line, at) {
    new_row("td")
    cells = 2
    cell_of[1] = trimmed(substr(line, 1, at - 1))
    cell_of[2] = trimmed(substr(line, at))
}

function new_row(tag) {
    if (cells > 0) text = text cells_as_row()
    tag_of_row = tag
}

function cells_as_row(    i, out, topic, cell) {
    out = "<tr>"
    if (is_main) {
        # The list of the headers: each is a group.
        topic = cell_of[1]
        sub(/\.h$/, "", topic)
        groups = groups "/** @defgroup " topic "_h keepsock/" topic ".h\n@brief " cell_of[2] " */\n"
        cell_of[1] = "@ref " topic "_h \"" cell_of[1] "\""
    }
    for (i = 1; i <= cells; i++) {
        cell = cell_of[i] ~ /^@ref / ? cell_of[i] : linked(cell_of[i])
        out = out "<" tag_of_row ">" cell "</" tag_of_row ">"
    }
    cells = 0
    return out "</tr>\n"
}

function trimmed(text) {
    sub(/^ +/, "", text)
    sub(/ +$/, "", text)
    return text
}

# The index by task: a title, tasks, and for each task lines `client.h 1: names`.
function index_line(line) {
    if (line == "") return
    if (line ~ /^   /) {
        line = trimmed(line)
        # A line with a place begins a list of names. Another line continues the list.
        if (sub(/^[a-z]+\.h [0-9]+: /, "", line) && is_list) text = text ","
        text = text (is_list ? "\n" : "<dd>") linked(line)
        is_list = 1
        return
    }
    end_list()
    if (line ~ /^ /) {
        text = text "<dt>" linked(trimmed(line)) "</dt>\n"
    } else {
        text = text (tasks > 0 ? "</dl>\n" : "")
        text = text "@subsection tasks_" ++tasks " " line "\n<dl>\n"
    }
}

function end_list() {
    if (is_list) text = text "</dd>\n"
    is_list = 0
}
