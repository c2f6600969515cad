/*
 * resp.c - a client of redis (RESP, Redis serialization protocol), which subscribes again
 *
 *     resp host:port channel [sessions [heartbeat_ms]]
 *
 * Stores and reads a value with two commands in one write, subscribes to the
 * channel, and prints its messages. PING is the heartbeat: a server that does not
 * answer it within twice its interval is lost. The client connects again after
 * each loss, and ends after that number of connections. Exit status: 0 after
 * them, 1 failed, 2 wrong arguments.
 */
#include <keepsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char PING[] = "*1\r\n$4\r\nPING\r\n";
static const char SET_GET[] = "*3\r\n$3\r\nSET\r\n$16\r\nkeepsock:example\r\n$5\r\nhello\r\n"
                              "*2\r\n$3\r\nGET\r\n$16\r\nkeepsock:example\r\n";

/* Appends one reply to text, the elements of an array separated by spaces. */
static int32_t read_value(keepsock_client *client, char *text, size_t cap, int depth, keepsock_error **error)
{
    char line[512];
    size_t used = strlen(text);
    int32_t status = keepsock_client_read_line(client, line, sizeof line, NULL, error);
    long count;

    if (status != KEEPSOCK_OK)
        return status;
    count = strtol(line + 1, NULL, 10);
    switch (line[0]) {
    case '$': /* a string of that length, and CRLF; or none */
        if (count < 0)
            return KEEPSOCK_OK;
        if ((size_t)count + 3 > cap - used)
            return KEEPSOCK_ERR_TOO_LONG;
        status = keepsock_client_read_exact(client, text + used, (size_t)count + 2, error);
        text[status == KEEPSOCK_OK ? used + (size_t)count : used] = '\0';
        return status;
    case '*': /* that number of values */
        if (depth == 0)
            return KEEPSOCK_ERR_TOO_LONG;
        while (status == KEEPSOCK_OK && count-- > 0) {
            status = read_value(client, text, cap, depth - 1, error);
            if (status == KEEPSOCK_OK && count > 0) {
                if (strlen(text) + 2 > cap)
                    return KEEPSOCK_ERR_TOO_LONG;
                strcat(text, " ");
            }
        }
        return status;
    case '+':
    case '-':
    case ':':
        snprintf(text + used, cap - used, "%s", line + 1);
        return KEEPSOCK_OK;
    default:
        return KEEPSOCK_ERR_MALFORMED;
    }
}

/* Reads the next reply or message that does not answer a heartbeat. */
static int32_t read_reply(keepsock_client *client, char *text, size_t cap, keepsock_error **error)
{
    int32_t status;

    do {
        text[0] = '\0';
        status = read_value(client, text, cap, 4, error);
    } while (status == KEEPSOCK_OK && (strcmp(text, "PONG") == 0 || strcmp(text, "pong ") == 0));
    return status;
}

/* Uses one connection until it is lost. Returns the reason. */
static int32_t session(keepsock_client *client, const char *channel, bool *worked, keepsock_error **error)
{
    char text[4096], subscribe[600];
    int32_t status;

    snprintf(subscribe, sizeof subscribe, "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%s\r\n", strlen(channel), channel);
    if ((status = keepsock_client_write_str(client, SET_GET, error)) != KEEPSOCK_OK
        || (status = read_reply(client, text, sizeof text, error)) != KEEPSOCK_OK
        || (status = read_reply(client, text, sizeof text, error)) != KEEPSOCK_OK)
        return status;
    printf("stored: %s\n", text);
    /* The server knows no subscription of a new connection. */
    if ((status = keepsock_client_write_str(client, subscribe, error)) != KEEPSOCK_OK
        || (status = read_reply(client, text, sizeof text, error)) != KEEPSOCK_OK)
        return status;
    puts("subscribed");
    while ((status = read_reply(client, text, sizeof text, error)) == KEEPSOCK_OK) {
        puts(text); /* "message", the channel, the text */
        *worked = true;
    }
    return status;
}

int main(int argc, char **argv)
{
    long sessions = argc > 3 ? strtol(argv[3], NULL, 10) : -1; /* below 0: no limit */
    int64_t heartbeat_ms = argc > 4 ? strtol(argv[4], NULL, 10) : 5000;
    keepsock_options *options = NULL;
    keepsock_reconnect *reconnect = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;

    if (argc < 3 || strlen(argv[2]) > 500) {
        fprintf(stderr, "usage: resp host:port channel [sessions [heartbeat_ms]]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, 5000, &error) != KEEPSOCK_OK
        || keepsock_options_set_dead_after(options, 10000, &error) != KEEPSOCK_OK
        || keepsock_options_set_heartbeat(options, heartbeat_ms, PING, sizeof PING - 1, &error) != KEEPSOCK_OK
        || keepsock_options_set_heartbeat_timeout(options, 2 * heartbeat_ms, &error) != KEEPSOCK_OK
        || keepsock_reconnect_new(argv[1], options, &reconnect, &error) != KEEPSOCK_OK
        || keepsock_reconnect_set_backoff(reconnect, 50, 10000, &error) != KEEPSOCK_OK)
        goto done;

    while (sessions != 0 && keepsock_reconnect_connect(reconnect, &client, &error) == KEEPSOCK_OK) {
        bool worked = false;
        int32_t status = session(client, argv[2], &worked, &error);

        printf("lost: %s\n", error != NULL ? keepsock_error_message(error) : keepsock_status_str(status));
        keepsock_error_free(error);
        error = NULL;
        keepsock_client_free(client);
        client = NULL;
        if (sessions > 0)
            sessions--;
        /* Without this, a connection that was short is a failure, and the next one is delayed. */
        if (worked)
            keepsock_reconnect_reset(reconnect, NULL);
    }

done:
    keepsock_error_print("resp", &error);
    keepsock_client_free(client);
    keepsock_reconnect_free(reconnect);
    keepsock_options_free(options);
    return sessions == 0 ? 0 : 1;
}
