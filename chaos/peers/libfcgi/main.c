/*
 * An application of the chaos run on the C libfcgi, at many addresses: see chaos/src/block.rs for what it answers. Each address has a few
 * threads, each with one connection at a time and one request at a time on that.
 *
 * Usage: chaos-libfcgi NAME=PATH…
 */
#include <fcgiapp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS 4
#define BLOCK 64

struct address {
    const char *name;
    int listener;
};

/* The value behind name= in the query, up to a `&`; empty if there is none. */
static void value(const char *query, const char *name, char *to, size_t room) {
    size_t length = strlen(name), used = 0;
    while (query && *query) {
        if (!strncmp(query, name, length) && query[length] == '=') {
            query += length + 1;
            while (*query && *query != '&' && used + 1 < room)
                to[used++] = *query++;
            break;
        }
        query = strchr(query, '&');
        if (query)
            query++;
    }
    to[used] = 0;
}

static long number(const char *query, const char *name) {
    char text[24];
    value(query, name, text, sizeof text);
    return atol(text);
}

static void answer(FCGX_Request *request, const char *name) {
    const char *query = FCGX_GetParam("QUERY_STRING", request->envp);
    char token[32], received[64], buffer[8192], line[2 * BLOCK + 64];
    uint64_t hash = 0xcbf29ce484222325u, length = 0;
    long blocks = number(query, "n"), pause = number(query, "p");
    int count;
    value(query, "t", token, sizeof token);
    while ((count = FCGX_GetStr(buffer, sizeof buffer, request->in)) > 0) {
        for (int i = 0; i < count; i++)
            hash = (hash ^ (unsigned char)buffer[i]) * 0x100000001b3u;
        length += (uint64_t)count;
    }
    snprintf(received, sizeof received, "%llu %016llx", (unsigned long long)length, (unsigned long long)hash);
    usleep((useconds_t)(1000 * number(query, "ms")));
    FCGX_FPrintF(request->out, "Content-Type: text/plain\r\nX-App: %s\r\nX-Token: %s\r\nX-Received: %s\r\n", name, token, received);
    if (number(query, "l"))
        FCGX_FPrintF(request->out, "Content-Length: %d\r\n", (int)(BLOCK * blocks));
    FCGX_FPrintF(request->out, "\r\n");
    for (long i = 0; i < blocks; i++) {
        count = snprintf(line, sizeof line, "%s %s %ld%s%s", name, token, i, i ? "" : " ", i ? "" : received);
        if (count > BLOCK - 1)
            count = BLOCK - 1;
        memset(line + count, ' ', (size_t)(BLOCK - count));
        line[BLOCK - 1] = '\n';
        if (FCGX_PutStr(line, BLOCK, request->out) < 0)
            return;
        if (pause && i == blocks / 2) {
            FCGX_FFlush(request->out);
            usleep((useconds_t)(1000 * pause));
        }
    }
}

static void *serve(void *argument) {
    struct address *address = argument;
    FCGX_Request request;
    FCGX_InitRequest(&request, address->listener, 0);
    while (FCGX_Accept_r(&request) == 0) {
        answer(&request, address->name);
        FCGX_Finish_r(&request);
    }
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t thread;
    signal(SIGPIPE, SIG_IGN);
    if (FCGX_Init())
        return 1;
    for (int i = 1; i < count; i++) {
        struct address *address = malloc(sizeof *address);
        char *path = strchr(arguments[i], '=');
        if (!address || !path)
            return 2;
        *path++ = 0;
        address->name = arguments[i];
        address->listener = FCGX_OpenSocket(path, 1024);
        if (address->listener < 0)
            return 1;
        for (int n = 0; n < THREADS; n++)
            if (pthread_create(&thread, NULL, serve, address))
                return 1;
    }
    pthread_join(thread, NULL);
    return 0;
}
