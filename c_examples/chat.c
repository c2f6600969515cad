/*
 * chat.c - a chat server with rooms: any number of clients on one thread
 *
 *     chat [endpoint]
 *     nc localhost 7000      (who chats; any program that sends lines will do)
 *
 * Listens on endpoint (default 127.0.0.1:0, any free port) and prints where.
 * A client's first line is its name. "/join ROOM" and "/leave" are for
 * entering and leaving a room; every other line goes to all in that room, who
 * are also told who comes, who goes and why. Ctrl-C or SIGTERM ends it: it
 * says goodbye to everybody. Exit status: 0 ended as asked, 1 failed, 2 wrong
 * arguments.
 */
#include <inttypes.h>
#include <keepsock.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE 500

/* What goes with each connection, from its first callback to its last. */
struct person {
    char name[32]; /* empty until the first line came */
    char room[64]; /* the group's name, too; empty: in none */
};

/* A signal handler has no argument of ours, so the token is global. */
static keepsock_cancel *stop;

static void on_signal(int signo)
{
    (void)signo;
    keepsock_cancel_fire(stop);
}

/* One line for one client. Should it not arrive, then the connection is over,
 * and the close callback says so: nothing is to be done about it here. */
static void tell(keepsock_connection *connection, const char *text)
{
    keepsock_connection_send(connection, text, strlen(text), NULL);
}

/* One line for all in a room; user is where main keeps the service. */
static void tell_room(void *user, const char *room, const char *format, ...)
{
    keepsock_service **service = user;
    char line[MAX_LINE + 100];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    keepsock_service_broadcast_to(*service, room, line, strlen(line), NULL, 0, NULL);
}

static void leave(keepsock_connection *connection, const char *why, void *user)
{
    struct person *person = keepsock_connection_data(connection);

    if (person == NULL || person->room[0] == '\0')
        return;
    tell_room(user, person->room, "* %s has left %s: %s", person->name, person->room, why);
    keepsock_connection_leave(connection, person->room, NULL);
    person->room[0] = '\0';
}

static void join(keepsock_connection *connection, const char *room, void *user)
{
    struct person *person = keepsock_connection_data(connection);
    keepsock_error *error = NULL;

    leave(connection, "went to another room", user);
    snprintf(person->room, sizeof person->room, "%.*s", (int)sizeof person->room - 1, room);
    if (keepsock_connection_join(connection, person->room, &error) == KEEPSOCK_OK) {
        tell_room(user, person->room, "* %s has joined %s", person->name, person->room);
    } else { /* its name is not UTF-8 */
        tell(connection, keepsock_error_message(error));
        person->room[0] = '\0';
    }
    keepsock_error_free(error);
}

static void on_open(keepsock_connection *connection, void *user)
{
    struct person *person = calloc(1, sizeof *person);

    (void)user;
    if (person == NULL) {
        keepsock_connection_abort(connection);
        return;
    }
    keepsock_connection_set_data(connection, person);
    tell(connection, "* your name?");
}

/* Lines come one at a time, without their LF; and without a NUL. */
static void on_data(keepsock_connection *connection, const void *data, size_t len, void *user)
{
    struct person *person = keepsock_connection_data(connection);
    char line[MAX_LINE + 1];

    memcpy(line, data, len);
    line[len] = '\0';
    if (person->name[0] == '\0')
        snprintf(person->name, sizeof person->name, "%.*s", (int)sizeof person->name - 1, line);
    else if (strncmp(line, "/join ", 6) == 0 && line[6] != '\0')
        join(connection, line + 6, user);
    else if (strcmp(line, "/leave") == 0)
        leave(connection, "by /leave", user);
    else if (person->room[0] != '\0')
        tell_room(user, person->room, "%s: %s", person->name, line);
    else
        tell(connection, "* you are in no room: /join ROOM");
}

/* Closing delivers what was sent before. */
static void on_drain(keepsock_connection *connection, void *user)
{
    (void)user;
    tell(connection, "* goodbye: the server ends");
    keepsock_connection_close(connection);
}

/* Comes for every connection, once, however it ended. */
static void on_close(keepsock_connection *connection, int32_t end, void *user)
{
    leave(connection, keepsock_end_text(end), user);
    free(keepsock_connection_data(connection));
}

int main(int argc, char **argv)
{
    const keepsock_callbacks callbacks = {
        .size = sizeof callbacks, .open = on_open, .data = on_data, .drain = on_drain, .close = on_close
    };
    keepsock_options *options = NULL;
    keepsock_serve_options *serve_options = NULL;
    keepsock_server *server = NULL;
    keepsock_service *service = NULL;
    keepsock_error *error = NULL;
    uint32_t finished, cut;
    int exit_status = 1;

    if (argc > 2) {
        fprintf(stderr, "usage: chat [endpoint]\n");
        return 2;
    }

    /* Who does not read is disconnected when 64 KiB wait for it, and who sends
     * a line without end at MAX_LINE bytes: neither can fill the memory. */
    if (keepsock_cancel_new(&stop, &error) != KEEPSOCK_OK
        || keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_cancel(options, stop, &error) != KEEPSOCK_OK
        || keepsock_serve_options_new(&serve_options, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_lines(serve_options, MAX_LINE, &error) != KEEPSOCK_OK
        || keepsock_serve_options_set_max_queued(serve_options, 65536, &error) != KEEPSOCK_OK
        || keepsock_server_listen(argc > 1 ? argv[1] : "127.0.0.1:0", options, &server, &error) != KEEPSOCK_OK
        || keepsock_server_serve_events(server, serve_options, &callbacks, &service, &service, &error) != KEEPSOCK_OK)
        goto done;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    puts(keepsock_server_endpoint(server));
    fflush(stdout);

    if (keepsock_service_wait(service, KEEPSOCK_INFINITE, &error) != KEEPSOCK_OK
        || keepsock_service_drain(service, 5000, &finished, &cut, &error) != KEEPSOCK_OK)
        goto done;
    printf("drained: %" PRIu32 " finished, %" PRIu32 " cut\n", finished, cut);
    exit_status = 0;

done:
    if (error != NULL)
        fprintf(stderr, "chat: %s\n", keepsock_error_message(error));
    keepsock_error_free(error);
    keepsock_service_free(service);
    keepsock_server_free(server);
    keepsock_serve_options_free(serve_options);
    keepsock_options_free(options);
    signal(SIGINT, SIG_DFL); /* the handler must not find a token that is gone */
    signal(SIGTERM, SIG_DFL);
    keepsock_cancel_free(stop);
    return exit_status;
}
