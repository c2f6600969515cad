/*
 * curl_connect PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS - libcurl's easy interface, connection only
 *
 * One handle for all connections. TCP_NODELAY is curl's default. CURLOPT_TCP_KEEPCNT came with
 * 8.9, so a curl callback sets the count. A round trip is send,
 * wait, receive, as curl_easy_recv(3) shows it.
 */
#include "client.h"
#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

static void must(CURLcode code, const char *what)
{
    if (code != CURLE_OK) {
        fprintf(stderr, "%s: %s\n", what, curl_easy_strerror(code));
        exit(1);
    }
}

static int set_count(void *user, curl_socket_t fd, curlsocktype purpose)
{
    int count = 5;

    (void)user, (void)purpose;
    return setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count) == 0 ? CURL_SOCKOPT_OK
                                                                              : CURL_SOCKOPT_ERROR;
}

static void round_trip(CURL *curl, curl_socket_t fd, long timeout_ms)
{
    char buf[SIZE];
    size_t done, missing = SIZE;

    memset(buf, 'k', sizeof buf);
    must(curl_easy_send(curl, buf, SIZE, &done), "send");
    if (done != SIZE)
        exit(1);
    while (missing > 0) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};

        if (poll(&readable, 1, (int)timeout_ms) != 1)
            exit(1);
        must(curl_easy_recv(curl, buf, missing, &done), "recv");
        if (done == 0)
            exit(1);
        missing -= done;
    }
}

int main(int argc, char **argv)
{
    struct task task = task_of(argc, argv);
    char url[64];

    must(curl_global_init(CURL_GLOBAL_NOTHING), "init");
    CURL *curl = curl_easy_init();

    if (!curl)
        return 1;
    snprintf(url, sizeof url, "http://127.0.0.1:%u", (unsigned)task.port);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_WITHIN_MS);
    curl_easy_setopt(curl, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPIDLE, 45L);
    curl_easy_setopt(curl, CURLOPT_TCP_KEEPINTVL, 15L);
    curl_easy_setopt(curl, CURLOPT_SOCKOPTFUNCTION, set_count);
    /* Without messages the connection is closed as soon as it is established. */
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, task.messages == 0 ? 1L : 0L);
    while (task.connections-- > 0) {
        must(curl_easy_perform(curl), "connect");
        if (task.messages == 0)
            continue;

        curl_socket_t fd;

        must(curl_easy_getinfo(curl, CURLINFO_ACTIVESOCKET, &fd), "descriptor");
        for (long i = 0; i < task.messages; i++)
            round_trip(curl, fd, task.timeout_ms);
    }
    curl_easy_cleanup(curl);
    return 0;
}
