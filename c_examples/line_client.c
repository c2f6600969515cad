/*
 * line_client.c - fetches a page over HTTP/1.0 within one deadline
 *
 *     line_client host:port [path]
 *     line_client example.org:80 /
 *
 * Prints the status line, the headers and the body. Shows how to read lines and
 * then bytes from one connection, how to write several buffers with one call,
 * and how to derive the timeout of each call from the deadline of the exchange.
 * Exit status: 0 the server returned a page (2xx), 1 failed, 2 wrong arguments,
 * 3 the server returned another status.
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <keepsock.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DEADLINE_MS 10000

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Returns the remaining time for the next call. A timeout applies to one call,
 * and a server that sends one byte a second keeps every call short. The result is
 * at least 1 ms, because -1 would mean KEEPSOCK_INFINITE. */
static int32_t set_time_left(keepsock_client *client, int64_t deadline, keepsock_error **error)
{
    int64_t left = deadline - now_ms();

    return keepsock_client_set_read_timeout(client, left > 1 ? left : 1, error);
}

int main(int argc, char **argv)
{
    int64_t deadline = now_ms() + DEADLINE_MS;
    keepsock_options *options = NULL;
    keepsock_client *client = NULL;
    keepsock_error *error = NULL;
    char buf[8192];
    size_t len;
    int code = 0;
    int exit_status = 1;

    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: line_client host:port [path]\n");
        return 2;
    }

    const char *path = argc > 2 ? argv[2] : "/";
    const char *middle = " HTTP/1.0\r\nHost: ", *end = "\r\n\r\n";
    const keepsock_slice request[] = {
        { "GET ", 4 }, { path, strlen(path) }, { middle, strlen(middle) }, { argv[1], strlen(argv[1]) },
        { end, strlen(end) },
    };

    /* The connect timeout covers the name lookup and every attempt. Closing does
     * not have to wait: the server replies only after it has read the whole request. */
    if (keepsock_options_new(&options, &error) != KEEPSOCK_OK
        || keepsock_options_set_connect_timeout(options, DEADLINE_MS, &error) != KEEPSOCK_OK
        || keepsock_options_set_write_timeout(options, DEADLINE_MS, &error) != KEEPSOCK_OK
        || keepsock_options_set_close_timeout(options, 0, &error) != KEEPSOCK_OK
        || keepsock_client_connect(argv[1], options, &client, &error) != KEEPSOCK_OK
        || keepsock_client_write_slices(client, request, sizeof request / sizeof *request, &error) != KEEPSOCK_OK)
        goto done;

    /* read_line removes the line ending, so the empty line after the headers has
     * length 0. A line longer than buf is an error. */
    do {
        if (set_time_left(client, deadline, &error) != KEEPSOCK_OK
            || keepsock_client_read_line(client, buf, sizeof buf, &len, &error) != KEEPSOCK_OK)
            goto done;
        puts(buf);
        if (code == 0 && sscanf(buf, "HTTP/%*d.%*d %d", &code) != 1) {
            fprintf(stderr, "line_client: %s does not speak HTTP\n", argv[1]);
            goto done;
        }
    } while (len > 0);

    /* In HTTP/1.0 the server ends the body by closing. */
    do {
        if (set_time_left(client, deadline, &error) != KEEPSOCK_OK
            || keepsock_client_read(client, buf, sizeof buf, &len, &error) != KEEPSOCK_OK)
            goto done;
        fwrite(buf, 1, len, stdout);
    } while (len > 0);
    exit_status = code >= 200 && code < 300 ? 0 : 3;

done:
    keepsock_error_print("line_client", &error);
    keepsock_client_free(client);
    keepsock_options_free(options);
    return exit_status;
}
