#!/bin/sh
# Runs one example as a test: starts its peer, compares the output, and removes
# all files and processes.
#
#     run.sh TEST PROGRAM...
#
# Environment: KEEPSOCK_TEST_DIR   a directory to create, use and remove
#              KEEPSOCK_VALGRIND   valgrind, to run each keepsock program under it
#              KEEPSOCK_EMULATOR   the command that runs a program built for another system
#              KEEPSOCK_PYTHON     python3, for the test that talks to its http.server
#              KEEPSOCK_LOAD       the number of connections of the restart test; default 50000
#              KEEPSOCK_SESSIONS   the number of connections of the tests with redis and mosquitto; default 20
#
# Servers listen on port 0 and print their endpoint. Each side waits for the other
# through pipes, except for a server's output on stderr, so no test sleeps. The
# timeout of ctest ends a test that hangs.
set -eu

name=$1
shift
dir=$KEEPSOCK_TEST_DIR
rm -rf "$dir"
mkdir -p "$dir"

pids=
clean_up() {
    status=$?
    trap - EXIT
    trap '' PIPE
    for pid in $pids; do
        kill -9 "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
    if [ $status -ne 0 ]; then
        for file in "$dir"/*.err "$dir"/valgrind.*; do
            [ -s "$file" ] && sed "s|^|${file##*/}: |" "$file" >&2
        done
    fi
    rm -rf "$dir"
    exit $status
}
trap clean_up EXIT
trap 'exit 1' HUP INT PIPE TERM

fail() {
    echo "$name: $*" >&2
    exit 1
}

skip() { # REASON: ends the test, which ctest reports as skipped
    echo "$name: skipped: $*"
    [ "${CI:-}" != true ] || fail "CI=true: a skipped test is a failure"
    exit 77
}

# Programs for Windows end their lines with CR LF.
cr=
if [ -n "${KEEPSOCK_EMULATOR:-}" ]; then
    cr=$(printf '\r')
    read() { # -r VARIABLE
        command read "$@" || return
        eval "$2=\${$2%\"\$cr\"}"
    }
fi

without_cr() { # FILE
    if [ -n "$cr" ]; then
        tr -d '\r' <"$1" >"$1.lf"
        mv "$1.lf" "$1"
    fi
}

equal() { # WHAT EXPECTED FOUND
    set -- "$1" "$2" "${3%"$cr"}"
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}

valgrind_flags="--error-exitcode=9 --leak-check=full --track-fds=yes --child-silent-after-fork=yes"

# A command before each program, which changes its privileges.
before=

# Executes the program in this shell. Call it in the background or in a subshell,
# so that $! is the program itself.
run() {
    if [ -n "${KEEPSOCK_VALGRIND:-}" ]; then
        # shellcheck disable=SC2086 # several words
        exec $before "$KEEPSOCK_VALGRIND" $valgrind_flags --log-file="$dir/valgrind.%p" "$@"
    fi
    # shellcheck disable=SC2086 # the emulator may have arguments
    exec $before ${KEEPSOCK_EMULATOR:-} "$@"
}

# Waits for a background program, which must succeed.
ended() { # PID WHAT
    status=0
    wait "$1" || status=$?
    pids=$(echo " $pids " | sed "s/ $1 / /")
    [ $status -eq 0 ] || fail "$2 ended with status $status"
}

# Three concurrent clients send $dir/text to $endpoint, and receive it back.
three_clients() { # PROGRAM
    clients=
    for i in 1 2 3; do
        run "$1" "$endpoint" <"$dir/text" >"$dir/reply.$i" 2>"$dir/client.$i.err" &
        clients="$clients $!"
        pids="$pids $!"
    done
    for pid in $clients; do ended "$pid" "client"; done
    for i in 1 2 3; do
        without_cr "$dir/reply.$i"
        cmp "$dir/text" "$dir/reply.$i" || fail "reply $i differs"
    done
}

# Starts a server, and reads the endpoint that it prints. The rest of its
# output can be read from descriptor 3.
start() {
    mkfifo "$dir/server"
    run "$@" >"$dir/server" 2>"$dir/server.err" &
    server=$!
    pids="$pids $server"
    exec 3<"$dir/server"
    read -r endpoint <&3 || fail "the server printed no endpoint"
}

case $name in
first)
    start "$2" --count 1
    equal "line" hello "$(run "$1" "$endpoint" 2>"$dir/first.err")"
    ended "$server" "server"
    # No process listens: a message and status 1.
    status=0
    message=$(run "$1" "$endpoint" 2>&1) || status=$?
    equal "status without a server" 1 $status
    case $message in
    "first: connect to $endpoint: "?*) ;;
    *) fail "message without a server: $message" ;;
    esac
    ;;

echo_accept)
    start "$1" --count 2
    for text in one two; do
        equal "reply" $text "$(echo $text | run "$2" "$endpoint" 2>"$dir/client.err")"
    done
    ended "$server" "server"
    ;;

echo_server)
    start "$1"
    awk 'BEGIN { for (i = 0; i < 200; i++) print "line", i, "of the text that the clients send" }' >"$dir/text"
    three_clients "$2"

    # One client is still connected when the server is stopped.
    mkfifo "$dir/in" "$dir/out"
    run "$2" "$endpoint" <"$dir/in" >"$dir/out" 2>"$dir/last.err" 3<&- &
    last=$!
    pids="$pids $last"
    exec 4>"$dir/in" 5<"$dir/out"
    echo "still here" >&4
    read -r line <&5 && equal "reply" "still here" "$line"
    kill -TERM "$server"
    ended "$server" "server"
    read -r report <&3
    case $report in
    "drained: "?*" completed, 0 reset") ;;
    *) fail "report: $report" ;;
    esac
    exec 4>&-
    ended "$last" "last client"
    ;;

datagram)
    start "$1"
    udp=$endpoint
    printf 'one\ntwo\n\nlast\n' >"$dir/text"
    three_clients "$2"
    # Windows has neither SIGTERM nor Unix sockets.
    [ -z "$cr" ] || exit 0
    kill -TERM "$server"
    ended "$server" "server"
    read -r report <&3
    # A client that waits for more than a second sends its line again.
    case $report in
    1[2-9]" received, 0 dropped" | [23][0-9]" received, 0 dropped") ;;
    *) fail "report: $report" ;;
    esac
    # No process has the port, and the host reports that.
    status=0
    (echo lost | run "$2" "$udp") >"$dir/lost" 2>"$dir/lost.err" || status=$?
    equal "status without a server" 1 $status
    grep -q "^datagram_client: reported: connection refused" "$dir/lost.err" || fail "$(cat "$dir/lost.err")"
    # The same over a Unix socket.
    rm "$dir/server"
    start "$1" "unix:$dir/socket"
    equal "endpoint" "unix:$dir/socket" "$endpoint"
    equal "reply" local "$(echo local | run "$2" "$endpoint" 2>"$dir/client.err")"
    kill -TERM "$server"
    ended "$server" "server"
    [ ! -e "$dir/socket" ] || fail "the file of the socket exists"
    ;;

push)
    mkfifo "$dir/in" "$dir/server" "$dir/a" "$dir/b"
    run "$1" <"$dir/in" >"$dir/server" 2>"$dir/server.err" &
    server=$!
    pids="$pids $server"
    exec 4>"$dir/in" 3<"$dir/server"
    read -r endpoint <&3 || fail "the server printed no endpoint"

    # A client with descriptor 4 would keep the server's input open.
    run "$2" --count 3 "$endpoint" >"$dir/a" 2>"$dir/a.err" 3<&- 4>&- &
    a=$!
    run "$2" "$endpoint" >"$dir/b" 2>"$dir/b.err" 3<&- 4>&- &
    b=$!
    pids="$pids $a $b"
    exec 5<"$dir/a" 6<"$dir/b"

    read -r line <&5 && equal "to a" welcome "$line"
    read -r line <&6 && equal "to b" welcome "$line"
    for text in first second; do
        echo $text >&4
        read -r line <&3 && equal "report" "sent to 2, reset 0" "$line"
        read -r line <&5 && equal "to a" $text "$line"
        read -r line <&6 && equal "to b" $text "$line"
    done
    ended $a "client a"

    echo third >&4
    read -r line <&6 && equal "to b" third "$line"
    exec 4>&-
    ended "$server" "server"
    ended $b "client b"
    ;;

chat)
    start "$1"
    talk=$2
    ann='' bob='' cid='' # processes
    enter() { # NAME IN OUT: a client of that name, which writes and reads these descriptors
        mkfifo "$dir/$1.in" "$dir/$1.out"
        # A client that inherits the descriptors of another client would keep its input open.
        KEEPSOCK_VALGRIND='' run "$talk" "$endpoint" <"$dir/$1.in" >"$dir/$1.out" 2>"$dir/$1.err" \
            3<&- 4>&- 5<&- 6>&- 7<&- 8>&- 9<&- &
        pids="$pids $!"
        eval "$1=$! && exec $2>\"\$dir/$1.in\" $3<\"\$dir/$1.out\""
        hears "$3" "* your name?"
        echo "$1" >&"$2"
    }
    hears() { # DESCRIPTOR LINE
        read -r line <&"$1" || fail "end of stream instead of '$2'"
        equal "on descriptor $1" "$2" "$line"
    }
    enter ann 4 5
    echo "a line outside of any room" >&4
    hears 5 "* you are in no room: /join ROOM"
    echo "/join red" >&4
    hears 5 "* ann has joined red"
    enter bob 6 7
    echo "/join red" >&6
    hears 5 "* bob has joined red"
    hears 7 "* bob has joined red"
    enter cid 8 9
    echo "/join blue" >&8
    hears 9 "* cid has joined blue"

    # A line in one room does not reach the other room, whose next line is different.
    echo "hello, red" >&4
    hears 5 "ann: hello, red"
    hears 7 "ann: hello, red"
    echo "hello, blue" >&8
    hears 9 "cid: hello, blue"

    echo "/leave" >&4
    hears 5 "* ann has left red: by /leave"
    hears 7 "* ann has left red: by /leave"
    echo "/join blue" >&6
    hears 7 "* bob has left red: went to another room"
    hears 7 "* bob has joined blue"
    hears 9 "* bob has joined blue"
    exec 6>&-
    hears 9 "* bob has left blue: closed by peer"
    ended "$bob" "bob"

    echo "/join blue" >&4
    hears 5 "* ann has joined blue"
    hears 9 "* ann has joined blue"
    awk 'BEGIN { while (i++ < 600) printf "x"; print "" }' >&4
    hears 9 "* ann has left blue: message too long"
    status=0
    wait "$ann" || status=$?
    equal "status of a client that was reset" 3 $status

    kill -TERM "$server"
    hears 9 "* goodbye: the server ends"
    ended "$cid" "cid"
    ended "$server" "server"
    read -r line <&3 && equal "report" "drained: 1 completed, 0 reset" "$line"
    ;;

ticker)
    cd "$dir" # a Unix socket's path must be short
    ticker=$1
    reader=$2
    read_ticks() { # N: into $dir/ticks
        (run "$reader" --count "$1" "$endpoint") >"$dir/ticks" 2>"$dir/reader.err"
    }
    end() { # ends it, with the report in $dir/report
        kill -TERM "$server"
        cat <&3 >"$dir/report"
        ended "$server" "server"
        rm "$dir/server"
    }
    reports() { # PATTERN
        grep -q "$1" "$dir/report" || fail "no '$1' in the report: $(cat "$dir/report")"
    }
    gaps() { # FILE: how many ticks are not the one after the tick before
        awk '!/^tick [0-9]+$/ { print "not a tick: " $0 } NR > 1 && $2 != last + 1 { n++ } { last = $2 } END { print n + 0 }' "$1"
    }
    start "$ticker" --rate 100
    read_ticks 20 || fail "no ticks"
    equal "gaps" 0 "$(gaps "$dir/ticks")"
    end
    reports '^connections 0, opened 1, closed 1$'

    # One reader is stopped for more ticks than its kernel can hold. A Unix socket
    # holds few: each message counts several hundred bytes.
    room=$(cat /proc/sys/net/core/wmem_default 2>/dev/null || echo 212992)
    most=$((room / 256 + 200))
    mkfifo "$dir/slow"
    for policy in '' --disconnect; do
        # shellcheck disable=SC2086 # zero or one word
        start "$ticker" --rate 1000 $policy unix:socket
        run "$reader" "$endpoint" >"$dir/slow" 2>"$dir/slow.err" 3<&- &
        slow=$!
        pids="$pids $slow"
        exec 4<"$dir/slow"
        read -r line <&4 || fail "no tick"
        kill -STOP "$slow"
        # Other readers still get ticks. They reconnect at times, because they may also be slow.
        tick=0
        while [ "$tick" -lt "$most" ]; do
            read_ticks 100 4<&- || [ -n "$policy" ] || fail "another reader was disconnected"
            tick=$(sed -n '$s/tick //p' "$dir/ticks")
            tick=${tick:-0}
        done
        kill -CONT "$slow"
        if [ -z "$policy" ]; then
            end
            cat <&4 >"$dir/missed"
            [ "$(gaps "$dir/missed")" -gt 0 ] || fail "the slow reader missed nothing"
            reports ' dropped [1-9][0-9]* in [1-9]'
        else # Unix sockets have no reset: the reader gets an end of stream
            cat <&4 >"$dir/missed"
            equal "gaps" 0 "$(gaps "$dir/missed")"
            end
            reports '^close reason: slow consumer, 1 connection'
        fi
        ended "$slow" "slow reader"
        exec 4<&-
    done
    ;;

file_server)
    command -v curl >/dev/null || skip "curl is missing. Install it (Debian, Ubuntu: apt-get install curl)"
    mkdir "$dir/files"
    head -c 33554432 /dev/urandom >"$dir/files/large"
    echo hello >"$dir/files/small"
    : >"$dir/files/empty"
    echo secret >"$dir/outside"
    ln -s ../outside "$dir/files/link"
    start "$1" 127.0.0.1:0 "$dir/files"
    get() { # ARGUMENT...
        curl --silent --show-error --max-time 60 --noproxy '*' "$@" 2>"$dir/curl.err"
    }
    # Several files on one connection
    url="http://$endpoint"
    connects=$(get --write-out '%{num_connects}\n' "$url/large" -o "$dir/large" "$url/empty" -o "$dir/empty" \
        "$url/small" -o "$dir/small") || fail "curl failed"
    equal "connects" "1 0 0" "$(echo $connects)"
    for file in large small empty; do
        cmp "$dir/files/$file" "$dir/$file" || fail "$file differs"
    done
    for name in missing .hidden link a/b '' "$(printf %0300d 0)"; do
        equal "status of '$name'" 404 "$(get --path-as-is -o "$dir/none" --write-out '%{http_code}' "$url/$name")"
    done
    equal "status of a POST" 404 "$(get -o "$dir/none" --write-out '%{http_code}' --request POST "$url/small")"
    # A client that reads slowly delays no other client.
    get --limit-rate 1M "$url/large" -o "$dir/slow" &
    slow=$!
    pids="$pids $slow"
    for i in 1 2 3 4 5; do
        equal "file next to a slow client" hello "$(get "$url/small")"
    done
    kill -9 "$slow"
    wait "$slow" 2>/dev/null || :
    kill -TERM "$server"
    ended "$server" "file server"
    ;;

proxy)
    cd "$dir" # a Unix socket's path must be short
    talk=$3
    send() { # FILE: through the proxy; the reply is in $dir/back
        status=0
        (KEEPSOCK_VALGRIND='' run "$talk" "$endpoint") <"$1" >"$dir/back" 2>"$dir/talk.err" 3<&- 4<&- 5<&- 6>&- 7<&- || status=$?
    }
    # A Unix socket has small buffers: the proxy must wait for the echo server.
    start "$2" unix:echo
    echo_server=$server
    exec 4<&3
    rm "$dir/server"
    start "$1" 127.0.0.1:0 unix:echo
    proxy=$server
    exec 5<&3
    rm "$dir/server"

    # The reply is whole only if the proxy forwards the end of each direction separately.
    head -c 8388608 /dev/urandom >"$dir/sent"
    send "$dir/sent"
    equal "status" 0 "$status"
    cmp "$dir/sent" "$dir/back" || fail "the reply differs"

    kill -TERM "$echo_server"
    ended "$echo_server" "echo server"
    echo again >"$dir/again"
    send "$dir/again"
    equal "status without the echo server" 3 "$status"
    grep -q '^proxy: connect to unix:echo: ' "$dir/server.err" || fail "the proxy did not print the reason"

    proxy_endpoint=$endpoint
    start "$2" unix:echo
    endpoint=$proxy_endpoint
    send "$dir/again"
    equal "reply" again "$(cat "$dir/back")"

    # A connection that is open when the proxy is stopped continues until its own end.
    mkfifo "$dir/in" "$dir/out"
    KEEPSOCK_VALGRIND='' run "$talk" "$endpoint" <"$dir/in" >"$dir/out" 2>"$dir/talk.err" 3<&- 4<&- 5<&- &
    last=$!
    pids="$pids $last"
    exec 6>"$dir/in" 7<"$dir/out"
    echo before >&6
    read -r line <&7 || fail "end of stream instead of 'before'"
    equal "reply" before "$line"
    kill -TERM "$proxy"
    while send "$dir/again" && [ "$status" -ne 1 ]; do :; done # until the proxy accepts no client
    echo after >&6 || fail "the connection has ended"
    read -r line <&7 || fail "end of stream instead of 'after'"
    equal "reply" after "$line"
    exec 6>&-
    ended "$last" "last client"
    ended "$proxy" "proxy"
    read -r line <&5
    case $line in
    "drained: "?*" completed, 0 reset") ;;
    *) fail "report: $line" ;;
    esac
    kill -TERM "$server"
    ended "$server" "echo server"
    ;;

restart)
    cd "$dir" # a Unix socket's path must be short
    restart=$1 load=$2 activate=$3
    begun() { # reads the server's next line: its endpoint and its process ID
        read -r line <&3 || fail "end of stream instead of a server"
        endpoint=${line% *} pid=${line#* }
        pids="$pids $pid"
    }
    begin() { # PROGRAM... : a server for which the shell does not wait
        rm -f "$dir/server"
        start "$@"
        line=$endpoint
        endpoint=${line% *} pid=${line#* }
    }
    end() { # stops the last server, and reads the end of all output
        kill -TERM "$pid"
        while read -r line <&3; do fail "after the end: $line"; done
        pids=
    }
    answers() { # WHAT
        said=$(KEEPSOCK_VALGRIND='' run "$load" "$endpoint" 1 1 3<&-) || fail "$1: $said"
    }
    connections=${KEEPSOCK_LOAD:-50000}
    [ -z "${KEEPSOCK_VALGRIND:-}" ] || connections=20000

    for where in 127.0.0.1:0 unix:socket; do
        # The server is replaced repeatedly while clients connect.
        begin "$restart" "$where"
        first=$pid
        rm -f "$dir/load"
        KEEPSOCK_VALGRIND='' run "$load" "$endpoint" "$connections" 8 >"$dir/load" 2>"$dir/load.err" 3<&- &
        client=$!
        pids="$pids $client"
        restarts=0
        while kill -0 "$client" 2>/dev/null && [ ! -s "$dir/load" ]; do
            last=$pid there=$endpoint
            kill -HUP "$pid"
            begun
            equal "endpoint" "$there" "$endpoint"
            [ "$pid" != "$last" ] || fail "it is the same process"
            restarts=$((restarts + 1))
        done
        ended "$client" "load: $(cat "$dir/load")"
        equal "load" "$connections connections: 0 refused, 0 reset, 0 cut short, 0 failed" "$(cat "$dir/load")"
        [ $restarts -ge 5 ] || fail "only $restarts restarts while clients connected"
        echo "$where: $(cat "$dir/load"); $restarts restarts"
        wait "$first" || fail "the first one ended with $?"
        answers "the last one"
        connections=$((connections / 5)) # a Unix socket has fewer failure modes
        end
        [ ! -e socket ] || fail "the last server did not remove the socket's file"
    done

    # A successor that cannot start: the predecessor prints the reason, and continues.
    cp "$restart" "$dir/program"
    begin "$dir/program"
    rm "$dir/program"
    kill -HUP "$pid"
    until grep -q 'still serving: hand over: not found' "$dir/server.err"; do kill -0 "$pid" || fail "it ended"; done
    answers "after a copy that is not there"
    printf '#!/bin/sh\nexit 9\n' >"$dir/program"
    chmod +x "$dir/program"
    kill -HUP "$pid"
    until grep -q 'still serving: .*exit status: 9' "$dir/server.err"; do kill -0 "$pid" || fail "it ended"; done
    answers "after a copy that ended"
    # A different file of that name is the next version.
    rm "$dir/program"
    cp "$restart" "$dir/program"
    kill -HUP "$pid"
    begun
    answers "the next version"
    end

    # With a socket of another program.
    begin "$activate" tcp 127.0.0.9 "$restart" 127.0.0.9:0
    case $endpoint in 127.0.0.9:[1-9]*) ;; *) fail "activated on $endpoint" ;; esac
    end
    begin "$activate" unix "$dir/activated" "$restart" unix:activated
    answers "activated"
    kill -HUP "$pid"
    begun
    answers "activated, and replaced"
    end
    [ -e activated ] || fail "the file of the service manager was removed"
    # A descriptor of another kind is not adopted, and the program creates its own socket.
    begin "$activate" udp 127.0.0.1 "$restart"
    answers "beside a UDP socket"
    end
    status=0
    message=$(LISTEN_FDS=many exec sh -c 'LISTEN_PID=$$ exec "$@"' sh "$restart" 2>&1) || status=$?
    equal "status for garbage" 1 $status
    case $message in *'LISTEN_FDS: "many" is not a number') ;; *) fail "for garbage: $message" ;; esac
    ;;

pass)
    cd "$dir" # a Unix socket's path must be short
    start "$1" work unix:worker
    worker=$server
    exec 4<&3
    rm "$dir/server"
    # shellcheck disable=SC2012 # the name is ours
    equal "mode" srw------- "$(ls -l worker | cut -c 1-10)"
    start "$1" accept unix:worker --count 3
    for i in 1 2 3; do
        equal "reply $i" "hello from worker $worker" "$(run "$2" "$endpoint" 2>"$dir/first.err")"
    done
    ended "$server" "acceptor"
    ended "$worker" "worker"
    [ ! -e worker ] || fail "the worker did not remove its socket"

    # Without a worker: a message and status 1.
    status=0
    message=$(run "$1" accept unix:worker 2>&1) || status=$?
    equal "status without a worker" 1 $status
    case $message in
    "pass: connect to unix:worker: "?*) ;;
    *) fail "message without a worker: $message" ;;
    esac
    ;;

reconnect | poll_loop)
    mkfifo "$dir/in" "$dir/client"
    begin() { # ENDPOINT: a server whose input is descriptor 4
        run "$1" "$2" <"$dir/in" >"$dir/server" 2>"$dir/server.err" &
        server=$!
        pids="$pids $server"
        exec 4>"$dir/in" 3<"$dir/server"
        read -r endpoint <&3 || fail "the server printed no endpoint"
    }
    end() { # stops it, and reads its last line from descriptor 3
        exec 4>&-
        ended "$server" "server"
        read -r line <&3 && equal "report" "drained: 1 completed, 0 reset" "$line"
    }
    await_line() { # PATTERN: skips the client's output up to a line with that pattern
        while read -r line <&5; do
            # shellcheck disable=SC2254 # it is a pattern
            case $line in $1) return ;; esac
        done
        fail "the client did not print '$1'"
    }
    mkfifo "$dir/server"
    begin "$1" 127.0.0.1:0
    # A client with descriptor 4 would keep the server's input open.
    run "$2" --sessions 2 "$endpoint" >"$dir/client" 2>"$dir/client.err" 3<&- 4>&- &
    client=$!
    pids="$pids $client"
    exec 5<"$dir/client"
    await_line "connected: tcp *"
    await_line welcome
    end
    await_line "lost: *"
    await_line "connect in * ms"
    await_line "try *: connect to $endpoint: connection refused after *; next in * ms"
    begin "$1" "$endpoint" # again
    await_line "connected: tcp *"
    await_line welcome
    end
    await_line "lost: *"
    ended "$client" "client"
    ;;

libuv_loop)
    mkfifo "$dir/client"
    next() { # LINE: the next line of the client must be that one
        read -r line <&5 || fail "end of stream instead of '$1'"
        equal "line" "$1" "$line"
    }
    start "$1"
    run "$2" "$endpoint" "subscribe news" 3 >"$dir/client" 2>"$dir/client.err" 3<&- &
    client=$!
    pids="$pids $client"
    exec 5<"$dir/client"
    next connected
    next "subscribe news" # the echo
    kill -TERM "$server"
    ended "$server" "server"
    for again in 1 2; do
        read -r line <&5 || fail "the client has ended"
        case $line in "lost: "*) ;; *) fail "'$line' instead of 'lost'" ;; esac
        rm "$dir/server"
        start "$1" "$endpoint"
        next connected
        next "subscribe news"
        kill -KILL "$server"
        wait "$server" || :
    done
    ended "$client" "client"
    ;;

adapters)
    # The cases need a network that drops packets, and names.
    cat >"$dir/network" <<'EOT'
ip link set lo up &&
    ip link add hole type veth peer name hole-end &&
    ip link set hole arp off && # without a missing neighbor
    ip link set hole up && ip link set hole-end up &&
    ip addr add 192.0.2.1/24 dev hole && ip addr add 2001:db8::1/64 dev hole nodad &&
    mount --bind "$dir/hosts" /etc/hosts && mount --bind "$dir/nsswitch" /etc/nsswitch.conf || exit 77
exec sh "$0" adapters-inside "$@"
EOT
    printf '%s\n' '2001:db8::77 dual.test' '127.0.0.1 dual.test' '2001:db8::77 dead.test' '192.0.2.77 dead.test' >"$dir/hosts"
    echo 'hosts: files' >"$dir/nsswitch"
    network=
    for words in "unshare -n -m" "unshare -U -r -n -m"; do
        [ -n "$network" ] || ! $words true 2>"$dir/unshare.err" || network=$words
    done
    [ -n "$network" ] || skip "no network namespaces: $(cat "$dir/unshare.err")"
    loops=$("$1" loops)
    status=0
    dir=$dir PATH=$PATH:/usr/sbin:/sbin KEEPSOCK_TEST_DIR=$dir/inside \
        $network sh -c ". $dir/network" "$0" "$1" "$loops" >"$dir/cases" 2>"$dir/network.err" || status=$?
    cat "$dir/cases"
    [ $status -ne 77 ] || skip "no network for the test: $(cat "$dir/network.err")"
    equal "status of the cases" 0 $status

    # The cost of connect, PING, PONG, close, and that of plain non-blocking calls.
    if [ -z "${KEEPSOCK_VALGRIND:-}" ]; then
        command -v strace >/dev/null || skip "strace is missing: the system calls are not counted"
        start "$1" server
        calls() { # LOOP plain|keepsock: system calls of a hundred cycles
            for n in 20 120; do
                strace -f -qq -c -o "$dir/strace" "$adapters" cycles "$1" "$2" "$endpoint" $n 3<&- || fail "cycles $1 $2"
                total=$(awk '$NF == "total" { print $4 }' "$dir/strace")
                [ $n -eq 20 ] || echo $((total - few))
                few=$total
            done
        }
        adapters=$1
        for loop in $loops; do
            plain=$(calls "$loop" plain)
            ours=$(calls "$loop" keepsock)
            echo "$loop: $ours system calls for 100 connects, $plain with plain calls"
            [ "$ours" -le $((plain + 4 * 100)) ] || fail "$loop: more than 4 additional system calls"
        done
    fi
    KEEPSOCK_VALGRIND= # the inner script has read the logs
    ;;

adapters-inside)
    start "$1" server
    clients=
    names=names
    [ -z "${KEEPSOCK_VALGRIND:-}" ] || names= # the resolver of glibc leaks
    for loop in $2; do # they wait most of their time
        mkdir "$dir/$loop"
        run "$1" cases "$loop" "$dir/$loop" "$endpoint" $names >"$dir/$loop.err" 2>&1 3<&- &
        clients="$clients $!"
        pids="$pids $!"
    done
    for pid in $clients; do ended "$pid" "adapters"; done
    cat "$dir"/*.err
    ;;

resp | mqtt)
    kind=redis server=redis-server
    [ "$name" = resp ] || kind=mosquitto server=mosquitto
    program=$(PATH=$PATH:/usr/sbin command -v $server) ||
        skip "$server is missing. Install it (Debian, Ubuntu: apt-get install $server)"
    if [ -n "${KEEPSOCK_VALGRIND:-}" ]; then
        # shellcheck disable=SC2086 # several words
        "$1" $kind "$program" "$dir" 20 20 "$KEEPSOCK_VALGRIND" $valgrind_flags --log-file="$dir/valgrind.%p" "$2"
    elif [ "${KEEPSOCK_SESSIONS:-20}" -lt 100 ]; then
        "$1" $kind "$program" "$dir" 20 20 "$2"
    else # the server is killed ten times, and stopped ten times
        "$1" $kind "$program" "$dir" "$KEEPSOCK_SESSIONS" $((KEEPSOCK_SESSIONS / 10)) "$2"
    fi
    ;;

missing)
    skip "$1"
    ;;

line_client)
    start_http() { # plain_http does not use keepsock, so it runs without valgrind
        KEEPSOCK_VALGRIND='' start "$@"
    }
    start_http "$2" 2
    get() { # PATH
        status=0
        (run "$1" "$endpoint" "$2") >"$dir/page" 2>"$dir/client.err" || status=$?
    }
    get "$1" /page.txt
    equal "status" 0 $status
    printf 'HTTP/1.0 200 OK\nContent-Type: text/plain\n\nfirst line\nsecond line\n' | cmp - "$dir/page" ||
        fail "the page differs"
    get "$1" /missing
    equal "status for a missing page" 3 $status
    ended "$server" "server"
    ;;

line_client_python)
    mkdir "$dir/www"
    printf 'first line\nsecond line\n' >"$dir/www/page.txt"
    mkfifo "$dir/server"
    "$KEEPSOCK_PYTHON" -u -m http.server 0 --bind 127.0.0.1 --directory "$dir/www" \
        >"$dir/server" 2>"$dir/server.err" &
    pids=$!
    exec 3<"$dir/server"
    # Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ...
    read -r line <&3 || fail "python printed no port"
    endpoint=127.0.0.1:$(echo "$line" | sed 's/.* port \([0-9]*\).*/\1/')
    (run "$1" "$endpoint" /page.txt) >"$dir/page" 2>"$dir/client.err" || fail "no page"
    without_cr "$dir/page"
    tail -n 2 "$dir/page" | cmp - "$dir/www/page.txt" || fail "the page differs"
    status=0
    (run "$1" "$endpoint" /missing) >"$dir/page" 2>"$dir/client.err" || status=$?
    equal "status for a missing page" 3 $status
    ;;

handshake)
    shown() { # WHAT: three lines, their states and the diagram are in $dir/out
        equal "$1: packets" 3 "$(grep -c '^IP 127\.0\.0\.1\..*: Flags \[[S.]*\]' "$dir/handshake")"
        for flags in '\[S\], seq' '\[S\.\], seq' '\[\.\], ack'; do
            grep -q "Flags $flags" "$dir/handshake" || fail "$1: no packet with $flags"
        done
        for line in '^client 127.* server 127' 'CLOSED |.*| LISTEN' 'SYN-SENT |-*>| SYN-RECEIVED' \
            'ESTABLISHED |<-*| SYN-RECEIVED' 'ESTABLISHED |-*>| ESTABLISHED' '^j = [0-9]*, k = [0-9]*:'; do
            grep -q "$line" "$dir/out" || fail "$1: no line like $line"
        done
    }
    saved() { # WHAT: the SYN that the kernel saved is in $dir/out
        if [ "$(uname)" = Linux ]; then
            sed -n '/saved by the kernel/,/^    from/p' "$dir/out" | grep -q '^IP .*Flags \[S\], seq' || fail "$1: no SYN"
        fi
    }

    # With the privilege to capture: of this user, or in a new network namespace.
    status=0
    (run "$1") >"$dir/out" 2>"$dir/handshake.err" || status=$?
    if [ $status -eq 3 ]; then
        saved "without the privilege"
        status=0
        before="unshare -Urn sh -c"
        if $before 'ip link set lo up' 2>"$dir/unshare.err"; then
            before="unshare -Urn sh $dir/up"
            printf 'ip link set lo up && exec "$@"\n' >"$dir/up"
            (run "$1") >"$dir/out" 2>"$dir/handshake.err" || status=$?
        else
            status=3
        fi
        before=
    fi
    if [ $status -eq 3 ]; then
        [ "${CI:-}" != true ] || [ "$(uname)" != Linux ] || fail "no user may capture here: $(cat "$dir/unshare.err")"
        echo "$name: the packets are skipped: $(cat "$dir/handshake.err")"
    else
        equal "status" 0 $status
        saved "with the privilege"
        sed -n '/^The handshake:/,$p' "$dir/out" >"$dir/handshake"
        shown "with the privilege"
    fi

    # With a server of another program: this side saves no SYN.
    if [ $status -eq 0 ] && (run "$1") >/dev/null 2>&1; then
        start "$2" --count 1
        (run "$1" "$endpoint") >"$dir/out" 2>"$dir/handshake.err" || fail "no handshake with $endpoint"
        ended "$server" "server"
        if grep -q 'saved by the kernel' "$dir/out"; then fail "a SYN that this side has sent"; fi
        cp "$dir/out" "$dir/handshake"
        shown "with a server"
    fi

    # Without the privilege, even as root.
    if [ "$(id -u)" = 0 ]; then
        before="setpriv --bounding-set -net_raw --inh-caps -net_raw"
        if ! $before true 2>"$dir/setpriv.err"; then
            [ "${CI:-}" != true ] || fail "setpriv: $(cat "$dir/setpriv.err")"
            before=
        fi
    fi
    if [ "$(id -u)" != 0 ] || [ -n "$before" ]; then
        status=0
        (run "$1") >"$dir/out" 2>"$dir/handshake.err" || status=$?
        equal "status without the privilege" 3 $status
        saved "without the privilege"
        for word in CAP_NET_RAW setcap 'unshare -Urn'; do
            grep -q "permission denied: .*$word" "$dir/handshake.err" || fail "$word is not named"
        done
        if grep -q '^The handshake' "$dir/out"; then fail "a handshake without the privilege"; fi
        status=0
        (run "$1" 127.0.0.1:1) >"$dir/out" 2>"$dir/handshake.err" || status=$?
        equal "status without the privilege and without a server" 3 $status
    fi
    before=

    status=0
    (run "$1" nonsense) >"$dir/out" 2>"$dir/handshake.err" || status=$?
    equal "status for nonsense" 2 $status
    rm -f "$dir"/*.err
    ;;

ends)
    KEEPSOCK_VALGRIND= # it would report the descriptors that the process has at its end
    for way in return exit quick_exit _exit pthread_exit; do
        status=0
        (run "$1" "$way") 2>"$dir/$way.err" || status=$?
        equal "status of $way" 17 $status
    done
    ;;

unload)
    KEEPSOCK_VALGRIND=
    status=0
    (run "$1" "$2") 2>"$dir/unload.err" || status=$?
    equal status 17 $status
    ;;

*) # needs no peer
    (run "$@")
    ;;
esac

# valgrind counts leaks as errors, but only lists open descriptors.
if [ -n "${KEEPSOCK_VALGRIND:-}" ]; then
    for log in "$dir"/valgrind.*; do
        [ -s "$log" ] || fail "valgrind left no log"
        awk '
            function report() { if (open != "") { print open; bad = 1 } open = "" }
            /^==[0-9]+== Open / { report(); open = $0; next }
            /<inherited from parent>/ { open = "" }
            END { report(); exit bad }' "$log" >&2 || fail "descriptors left open"
    done
fi
