/*
 * plain_http.c - a small HTTP/1.0 server on plain BSD sockets: the peer of line_client's
 * test
 *
 *     plain_http N
 *
 * Prints its endpoint, answers N requests, one after another, and ends. The
 * only page is /page.txt.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *found = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nfirst line\nsecond line\n";
    const char *missing = "HTTP/1.0 404 Not Found\r\n\r\n";
    struct sockaddr_in address = { 0 };
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    long count = argc == 2 ? strtol(argv[1], NULL, 10) : 0;

    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 8) != 0
        || getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        perror("plain_http");
        return 1;
    }
    printf("127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);

    for (; count > 0; count--) {
        char request[4096] = "";
        size_t len = 0;
        int connection = accept(listener, NULL, NULL);

        if (connection < 0) {
            perror("plain_http: accept");
            return 1;
        }
        while (strstr(request, "\r\n\r\n") == NULL && len < sizeof request - 1) {
            ssize_t got = read(connection, request + len, sizeof request - 1 - len);

            if (got <= 0)
                break;
            len += (size_t)got;
            request[len] = '\0';
        }
        const char *answer = strncmp(request, "GET /page.txt HTTP/1.0\r\n", 24) == 0 ? found : missing;
        if (write(connection, answer, strlen(answer)) != (ssize_t)strlen(answer))
            perror("plain_http: write");
        close(connection);
    }
    close(listener);
    return 0;
}
