<?php

// Uses a cache as a Laravel application does whose config/cache.php has the code that the dashboard shows: of
// Laravel only its cache.
//
// usage: laravel.php CODE

require "/usr/share/php/Illuminate/Container/autoload.php";
require "/usr/share/php/Illuminate/Cache/autoload.php";

use Illuminate\Cache\CacheManager;
use Illuminate\Cache\MemcachedConnector;
use Illuminate\Container\Container;

// In the place of Laravel's own, which reads .env files with a library that Debian does not install with it.
function env($name)
{
    return getenv($name);
}

$stores = eval("return [" . file_get_contents($argv[1]) . "];");

$app = new Container();
$app["config"] = [
    "cache.default" => "memcached",
    "cache.prefix" => "shop",
    "cache.stores.memcached" => $stores["memcached"],
];
$app["memcached.connector"] = new MemcachedConnector();
$cache = (new CacheManager($app))->store();

$cache->put("greeting", "hello", 60);
echo $cache->get("greeting"), "\n";
